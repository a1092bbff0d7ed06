using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Polite clients of all kinds, and the faults of other rows at a low rate, for a long time: nothing may grow.</summary>
internal sealed class Soak : Fault
{
    private const int Polite = 4;
    private const int Region = 1 << 20;
    private const long Gate = 300;
    private const long Release = 24 * 3600;

    private long _served;
    private long _attacks;

    public override string Id => "F20";

    public override string Title => "soak";

    public override async Task<string> RunAsync(FaultRun run)
    {
        var time = TimeSpan.FromSeconds(run.Size(Gate, Release));
        var options = new NbdServerOptions
        {
            HandshakeTimeout = TimeSpan.FromSeconds(2),
            StallTimeout = TimeSpan.FromSeconds(2),
            MaxConnections = 200,
            Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false },
        };
        await using FaultServer server = await FaultServer.StartAsync(new MemoryPlugin { Size = Region * (Polite + 64) }, options);
        using var stop = new CancellationTokenSource();
        Random random = run.Random();
        Task[] work =
        [
            .. Enumerable.Range(0, Polite).Select(i => PoliteAsync(server, i, new Random(random.Next()), () => !stop.IsCancellationRequested)),
            AttackAsync(server, new Random(random.Next()), stop.Token),
        ];
        // The first third fills what is kept for reuse.
        await Task.WhenAny(Task.Delay(time / 3), Task.WhenAny(work));
        await EndIfFailedAsync(work, server);
        (SoakUse first, double begin) = await SettledAsync(time / 10);
        var watch = Stopwatch.StartNew();
        await Task.WhenAny(Task.Delay(time / 3 * 2 * 0.8), Task.WhenAny(work));
        await EndIfFailedAsync(work, server);
        (SoakUse last, double end) = await SettledAsync(time / 10);
        await stop.CancelAsync();
        await Task.WhenAll(work);
        server.Log.AssertClean();
        double slope = (last.Heap - first.Heap) / watch.Elapsed.TotalHours / (1 << 20);
        long grown = last.Resident - first.Resident;
        return last.Heap - first.Heap > (4 << 20) || grown > (48 << 20) || last.Threads > first.Threads + 16 || last.Descriptors > first.Descriptors + 40
            ? throw new InvalidOperationException($"From {first} to {last}.")
            : $"{_served} requests served right, {_attacks} attacks, heap {first.Heap >> 10} to {last.Heap >> 10} KiB ({slope:F1} MiB/h), "
                + $"RSS {first.Resident >> 20} to {last.Resident >> 20} MiB, threads {first.Threads} to {last.Threads}, "
                + $"descriptors {first.Descriptors} to {last.Descriptors}, {begin:F0} and {end:F0} requests/s";
    }

    /// <summary>Fails if a client has failed already, with what the server said then.</summary>
    private static async Task EndIfFailedAsync(Task[] work, FaultServer server)
    {
        if (work.FirstOrDefault(task => task.IsCompleted) is not { } ended)
        {
            return;
        }
        string said = server.Log.Tail;
        try
        {
            await ended;
        }
        catch (NbdClientException e)
        {
            throw new InvalidOperationException($"A polite client was cut off. The server said last:\n{said}", e);
        }
    }

    /// <summary>What is used, and how many requests are served in a second.</summary>
    private async Task<(SoakUse Use, double Served)> SettledAsync(TimeSpan time)
    {
        long before = Volatile.Read(ref _served);
        SoakUse use = await SoakUse.MeasureAsync(time);
        return (use, (Volatile.Read(ref _served) - before) / time.TotalSeconds);
    }

    /// <summary>Connects in one way after another, and works on its part of the disk.</summary>
    private async Task PoliteAsync(FaultServer server, int number, Random random, Func<bool> goesOn)
    {
        await Task.Yield();
        byte[] model = new byte[Region];
        byte[] buffer = new byte[64 << 10];
        long start = (long)number * Region;
        for (int i = number; goesOn(); i++)
        {
            await using NbdClient client = await ((i % 3) switch
            {
                0 => NbdClient.ConnectAsync(server.Unix),
                1 => NbdClient.ConnectAsync(server.Tcp),
                _ => NbdClient.ConnectAsync(
                    server.Tcp, new NbdClientOptions { Tls = NbdTlsPolicy.Require, TlsAuthentication = TestCertificates.Client() }),
            });
            for (int j = 0; j < 500 && goesOn(); j++)
            {
                int length = 1 + random.Next(buffer.Length);
                int at = random.Next(Region - length + 1);
                Memory<byte> part = buffer.AsMemory(0, length);
                if (random.Next(2) == 0)
                {
                    random.NextBytes(part.Span);
                    part.CopyTo(model.AsMemory(at));
                    await client.WriteAsync(part, start + at);
                }
                else
                {
                    await client.ReadAsync(part, start + at);
                    if (!part.Span.SequenceEqual(model.AsSpan(at, length)))
                    {
                        throw new InvalidOperationException($"{length} bytes at {start + at} are not what was written.");
                    }
                }
                Interlocked.Increment(ref _served);
                await Task.Delay(1);
            }
        }
    }

    private async Task AttackAsync(FaultServer server, Random random, CancellationToken stop)
    {
        var open = new Queue<RawClient>();
        while (!stop.IsCancellationRequested)
        {
            await Task.Delay(20, CancellationToken.None);
            try
            {
                open.Enqueue(await Task.Run(() => Attack(random.Next(2) == 0 ? server.Unix : server.Tcp, random), CancellationToken.None));
            }
            catch (Exception e) when (e is SocketException or EndOfStreamException)
            {
                // The server has had enough of it.
            }
            _attacks++;
            while (open.Count > 50)
            {
                open.Dequeue().Drop();
            }
        }
        foreach (RawClient client in open)
        {
            client.Drop();
        }
    }

    private static RawClient Attack(System.Net.EndPoint endPoint, Random random)
    {
        switch (random.Next(5))
        {
            case 0:
                return HalfOpenHandshakes.Begin(endPoint, random.Next(HalfOpenHandshakes.PlainStates));
            case 1:
                // Deaf.
                RawClient deaf = RawClient.Go(endPoint, receiveBuffer: 4096);
                for (uint i = 0; i < 32; i++)
                {
                    deaf.AskRead(i, 0, 1 << 20);
                }
                return deaf;
            case 2:
                // Gone with requests in flight.
                RawClient gone = RawClient.Go(endPoint);
                for (uint i = 0; i < 64; i++)
                {
                    gone.AskRead(i, 0, 64 << 10);
                }
                gone.Drop();
                return gone;
            case 3:
                // Garbage in the place of a request.
                RawClient liar = RawClient.Go(endPoint);
                byte[] garbage = new byte[64];
                random.NextBytes(garbage);
                liar.Send(garbage);
                return liar;
            default:
                // A write that stops in the middle.
                RawClient half = RawClient.Go(endPoint);
                half.Send(WireBytes.Request(Cmd.Write, 1, (Polite + 1) << 20, 1 << 20));
                half.Send(new byte[1000]);
                return half;
        }
    }
}
