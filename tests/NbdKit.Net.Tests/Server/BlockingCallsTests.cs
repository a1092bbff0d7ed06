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
