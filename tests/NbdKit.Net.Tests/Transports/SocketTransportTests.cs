using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Transports;

/// <summary>Real sockets: what is sent from and received into the memory of the disk, what blocks, and what must not.</summary>
[NonParallelizable]
public sealed class SocketTransportTests
{
    private const int Size = 8 << 20;
    private const ushort Read = 0;
    private const ushort Write = 1;

    [TestCase(false, false)]
    [TestCase(false, true)]
    [TestCase(true, false)]
    [TestCase(true, true)]
    public async Task Payloads_of_all_sizes_arrive_as_they_were_sent(bool tcp, bool structured)
    {
        const int seed = 4711;
        var random = new Random(seed);
        byte[] model = new byte[Size - 1000];
        NbdBackend chain = NbdBackend.Compose(
            new MemoryPlugin { Size = Size }, new NofilterFilter(), new OffsetFilter { Offset = 1000 });
        await using var server = new NbdServer(chain);
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        await using WireClient client = await sockets.GoAsync(server, structured);
        for (int i = 0; i < 200; i++)
        {
            // Around the sizes at which payloads change their way, and beside the borders of pages.
            int length = random.Next(4) switch
            {
                0 => random.Next(1, 600),
                1 => (64 << 10) + random.Next(-3, 4),
                2 => random.Next(60_000, 300_000),
                _ => random.Next(1 << 20, 3 << 20),
            };
            int offset = random.Next(model.Length - length);
            if (random.Next(2) == 0)
            {
                byte[] data = new byte[length];
                random.NextBytes(data);
                data.CopyTo(model, offset);
                await client.WriteDataAsync((ulong)offset, data);
            }
            else
            {
                byte[] found = await client.ReadDataAsync((ulong)offset, (uint)length);
                Assert.That(found.AsSpan().SequenceEqual(model.AsSpan(offset, length)), Is.True, $"seed {seed}, operation {i}");
            }
        }
    }

    [Test]
    public async Task A_large_write_that_breaks_off_changes_nothing_outside_its_range()
    {
        NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = Size });
        await using NextContext disk = await chain.OpenAsync();
        byte[] old = new byte[Size];
        Array.Fill(old, (byte)7);
        await disk.WriteAsync(old, 0, RequestFlags.None, default);
        await using (var server = new NbdServer(chain))
        {
            using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
            WireClient client = await sockets.GoAsync(server, structured: false);
            await client.SendRequestAsync(Write, 1 << 20, 1 << 20);
            await client.SendAsync(new byte[300_000]);
            await client.CutAsync();
            Assert.That((await client.Ended).Reason, Is.EqualTo(NbdDisconnectReason.ConnectionLost));
        }
        byte[] found = new byte[Size];
        await disk.ReadAsync(found, 0, default);
        Assert.That(found.AsSpan(0, 1 << 20).IndexOfAnyExcept((byte)7), Is.EqualTo(-1));
        Assert.That(found.AsSpan((1 << 20) + 300_000).IndexOfAnyExcept((byte)7), Is.EqualTo(-1));
        await disk.CloseAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_client_that_sends_before_it_takes_its_replies_is_not_waited_for()
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        await using WireClient client = await sockets.GoAsync(server, structured: false);
        // Replies of 4 MiB that nobody takes yet, and then writes of 4 MiB: more than any socket buffer in either direction.
        var calls = new List<WireCall>();
        for (int i = 0; i < 4; i++)
        {
            calls.Add(await client.SendRequestAsync(Read, 0, 1 << 20));
        }
        byte[] data = new byte[1 << 20];
        Array.Fill(data, (byte)9);
        for (int i = 0; i < 4; i++)
        {
            calls.Add(await client.SendRequestAsync(Write, 4 << 20, (uint)data.Length));
            await client.SendAsync(data).WaitAsync(TimeSpan.FromSeconds(30));
        }
        foreach (WireCall _ in calls)
        {
            Assert.That((await client.ReadReplyAsync()).Error, Is.Zero);
        }
        Assert.That(await client.ReadDataAsync(4 << 20, 16), Is.All.EqualTo(9));
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task An_idle_client_is_woken_and_a_stop_finds_it(bool tcp)
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        WireClient client = await sockets.GoAsync(server, structured: false);
        for (int i = 0; i < 3; i++)
        {
            Assert.That(await client.ReadDataAsync(0, 100), Is.All.Zero);
            // Longer than a connection keeps its thread, so that it waits without one; nothing depends on the time.
            await Task.Delay(250);
        }
        await server.StopAsync().WaitAsync(TimeSpan.FromSeconds(4));
        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
    }

    [Test]
    public async Task A_hundred_idle_clients_take_no_threads()
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        int before = System.Diagnostics.Process.GetCurrentProcess().Threads.Count;
        var clients = new List<(SocketPair Sockets, WireClient Client)>();
        for (int i = 0; i < 100; i++)
        {
            SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
            clients.Add((sockets, await sockets.GoAsync(server, structured: false)));
        }
        int threads = System.Diagnostics.Process.GetCurrentProcess().Threads.Count;
        // What earlier tests left behind only goes away.
        Assert.That(threads - before, Is.LessThan(50), "one each would be more");
        foreach ((SocketPair sockets, WireClient client) in clients)
        {
            Assert.That(await client.ReadDataAsync(Size - 16, 16), Is.All.Zero);
            await client.DisposeAsync();
            sockets.Dispose();
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task A_client_that_said_its_last_and_takes_no_replies_costs_nothing(bool tcp)
    {
        if (!OperatingSystem.IsLinux())
        {
            Assert.Ignore("Sockets are watched by the runtime here.");
        }
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        WireClient client = await sockets.GoAsync(server, structured: false);
        // More than the buffers of any socket.
        for (int i = 0; i < 4; i++)
        {
            await client.SendRequestAsync(Read, 0, Size);
        }
        sockets.Client.Shutdown(System.Net.Sockets.SocketShutdown.Send);
        // The server knows of the end when this has passed.
        await Task.Delay(300);
        long before = IdleSocketThreads.Ticks;
        await Task.Delay(1000);
        Assert.That(IdleSocketThreads.Ticks - before, Is.LessThan(10), "hundredths of a second that the processor was busy");
    }
}
