using NbdKit.Plugins;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Calls that block their threads.</summary>
public sealed class BlockingCallsTests
{
    private sealed class Call(Action action) : IThreadPoolWorkItem
    {
        public void Execute() => action();
    }

    [Test]
    public async Task A_layer_that_blocks_takes_no_thread_of_the_pool()
    {
        bool? onPool = null;
        var plugin = new DelegatePlugin
        {
            Size = 4096,
            Read = (_, _, _) =>
            {
                onPool = Thread.CurrentThread.IsThreadPoolThread;
                return default;
            },
            AdjustInfo = info => info with { IsBlocking = true },
        };
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(plugin));
        WireClient client = await server.TransmitAsync("");
        await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, 512);
        Assert.That(onPool, Is.False);
    }

    [Test, Property("Threat", "N09")]
    public async Task Sixty_four_calls_that_block_hold_up_neither_another_export_nor_the_pool()
    {
        const int Calls = 64;
        using var blocked = new CountdownEvent(Calls);
        using var release = new ManualResetEventSlim();
        var slow = new TestExport("slow") { Configure = info => info with { IsBlocking = true } };
        var quick = new TestExport("quick");
        slow.Before = _ =>
        {
            blocked.Signal();
            release.Wait(Peer.Deadline);
            return default;
        };
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(new TestPlugin(slow, quick)));
        WireClient client = await server.TransmitAsync("slow");
        WireClient other = await server.TransmitAsync("quick");
        for (int i = 0; i < Calls; i++)
        {
            await client.SendRequestAsync(Cmd.Read, 0, 512);
        }
        try
        {
            // Each gets a thread after some time, whatever the number of processors.
            Assert.That(blocked.Wait(Peer.Deadline), "all of them run");
            var watch = System.Diagnostics.Stopwatch.StartNew();
            await other.ExpectAliveAsync(quick.Data);
            await (await server.TransmitAsync("quick")).ExpectAliveAsync(quick.Data);
            await Task.Run(() => { }).Soon();
            Assert.That(watch.Elapsed, Is.LessThan(TimeSpan.FromSeconds(1)));
        }
        finally
        {
            release.Set();
        }
        for (int i = 0; i < Calls; i++)
        {
            Assert.That((await client.ReadReplyAsync()).Error, Is.EqualTo(WireError.Ok));
        }
    }

    [Test]
    public void As_many_calls_block_beside_each_other_as_there_may_be_threads()
    {
        var calls = new BlockingCalls(16);
        using var all = new CountdownEvent(16);
        using var ended = new CountdownEvent(40);
        for (int i = 0; i < 40; i++)
        {
            calls.Queue(new Call(() =>
            {
                if (!all.IsSet)
                {
                    all.Signal();
                    all.Wait(Peer.Deadline);
                }
                ended.Signal();
            }));
        }
        Assert.That(all.Wait(Peer.Deadline), "16 calls block at the same time");
        Assert.That(ended.Wait(Peer.Deadline), "and the others come after them");
    }
}
