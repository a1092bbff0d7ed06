using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A session of many requests leaves nothing behind: no timers, no registrations on tokens, no memory.</summary>
[NonParallelizable]
public sealed class LongSessionTests
{
    private const int Requests = 400_000;
    private const int Depth = 50;
    private const int Length = 16;
    private const int Sessions = 500;
    private const long Slack = 512 << 10;

    // The soak row of the fault matrix has the millions; what leaks 32 bytes for each request is 12 MiB here.
    [Test, Property("Threat", "N13")]
    public async Task Requests_leave_no_timer_and_no_memory_behind([Values] bool later)
    {
        var time = new FakeTimeProvider();
        var plugin = new DelegatePlugin
        {
            Size = 1 << 20,
            Read = async (_, _, cancellationToken) =>
            {
                if (later)
                {
                    // What a layer that heeds its token does: a registration for each call.
                    await using CancellationTokenRegistration registered = cancellationToken.UnsafeRegister(_ => { }, null);
                    await Task.Yield();
                }
            },
        };
        NbdBackend chain = NbdBackend.Compose(
            plugin, new TimeLimitFilter { Total = TimeSpan.FromHours(1), Idle = TimeSpan.FromHours(1) }, new OffsetFilter { Offset = 512 });
        await using ChainServer server = await ChainServer.StartAsync(
            chain, new NbdServerOptions { TimeProvider = time, OpenTimeout = TimeSpan.FromSeconds(20) });
        WireClient client = await server.TransmitAsync("");
        await ExchangeAsync(client, Requests / 4);
        (long bytes, int timers) = (Heap(), time.PendingTimers);

        await ExchangeAsync(client, Requests);

        Assert.That(time.PendingTimers, Is.EqualTo(timers));
        Assert.That(Heap() - bytes, Is.LessThan(Slack), $"bytes after {Requests} requests more");
    }

    [Test, Property("Threat", "N13")]
    public async Task Sessions_leave_no_timer_and_no_memory_behind()
    {
        var time = new FakeTimeProvider();
        var options = new NbdServerOptions { TimeProvider = time };
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), options);
        await server.StartAsync();
        await VisitAsync(server, Sessions);
        (long bytes, int timers) = (Heap(), time.PendingTimers);

        await VisitAsync(server, Sessions * 4);

        Assert.That(time.PendingTimers, Is.EqualTo(timers));
        Assert.That(Heap() - bytes, Is.LessThan(Slack), $"bytes after {Sessions * 4} sessions more");
    }

    private static async Task ExchangeAsync(WireClient client, int requests)
    {
        byte[] batch = [.. Enumerable.Range(0, Depth).SelectMany(i => WireBytes.Request(Cmd.Read, (ulong)i, (ulong)i, Length))];
        for (int i = 0; i < requests; i += Depth)
        {
            await client.SendAsync(batch);
            await client.ReadAsync(Depth * (16 + Length));
        }
    }

    private static async Task VisitAsync(NbdServer server, int sessions)
    {
        for (int i = 0; i < sessions; i++)
        {
            var pipes = new PipePair();
            await using var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
            await client.GreetAsync();
            await client.InfoAsync();
            await client.GoAsync();
            await client.ReadDataAsync(0, 512);
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        }
    }

    private static long Heap()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return GC.GetTotalMemory(forceFullCollection: true);
    }
}
