using System.Diagnostics;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>200 clients ask for 400 GiB and take nothing, a byte each second, or something every now and then.</summary>
internal sealed class DeafReaders : Fault
{
    private const int Depth = 64;
    private const uint Length = 32 << 20;
    private const int Kinds = 3;
    private const int TicksEach = 4;

    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(250);

    public override string Id => "F12";

    public override string Title => "slow and deaf readers";

    /// <summary>How many clients there are.</summary>
    public int Clients { get; init; } = 200;

    /// <summary>What the connections of the server may hold together; the default if null.</summary>
    public long? Budget { get; init; }

    /// <summary>The part of its quiet throughput that a bystander must keep.</summary>
    public double Share { get; init; } = 0.7;

    public override async Task<string> RunAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors((2 * Clients) + 500);
        TimeSpan time = TimeSpan.FromSeconds(run.Size(60, 1_800));
        TimeSpan stall = run.Choose(TimeSpan.FromSeconds(8), TimeSpan.FromSeconds(60));
        var options = new NbdServerOptions { MaxConnections = Clients + 10, StallTimeout = stall };
        options = Budget is { } budget ? options with { MaxServerBytesInFlight = budget } : options;
        await using FaultServer server = await FaultServer.StartAsync(FillAsync, options);
        Random random = run.Random();
        var quiet = await server.QuietAsync(TimeSpan.FromSeconds(2));
        long before = ProcessUse.ResidentBytes;
        long most = 0;
        bool isMeasuring = false;
        using var stop = new CancellationTokenSource();
        Task watching = Task.Run(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                // Garbage is no memory that clients make a server hold: where there is plenty, the collector lets it lie.
                // But not while the bystander is timed, which it would stop.
                if (!Volatile.Read(ref isMeasuring))
                {
                    GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
                    most = Math.Max(most, ProcessUse.ResidentBytes);
                }
                await Task.Delay(500);
            }
        });
        RawClient[] clients = [.. Enumerable.Range(0, Clients).Select(i => Ask(server, i, random))];
        Task<double> deaf = Task.Factory.StartNew(
            () => Listen(clients, time, stall), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        // What is taken at the start is full by then, and every client waits.
        await Task.Delay(TimeSpan.FromSeconds(3));
        Volatile.Write(ref isMeasuring, true);
        var disturbed = await server.QuietAsync(TimeSpan.FromSeconds(2));
        Volatile.Write(ref isMeasuring, false);
        double closed = await deaf;
        foreach (RawClient client in clients)
        {
            client.Dispose();
        }
        await stop.CancelAsync();
        await watching;
        // It is not quiet again before the server is done with those who left.
        TimeSpan left = await ProcessUse.UntilAsync(
            () => server.Server.Connections.Count == 0,
            10 * ProcessUse.Patience,
            () => $"{server.Server.Connections.Count} connections outlived their clients");
        var quietAgain = await server.QuietAsync(TimeSpan.FromSeconds(2));
        server.Log.AssertClean();
        Check(options, most - before, Math.Min(quiet.Count, quietAgain.Count), disturbed.Count);
        return $"{Clients} clients x {Depth} reads of 32 MiB, {(most - before) >> 20} MiB of {options.MaxServerBytesInFlight >> 20} MiB used, "
            + $"the deaf closed after at most {closed:F1} s, the rest {left.TotalSeconds:F1} s after they had left, bystander {quiet.Count} and {quietAgain.Count} reads quiet, "
            + $"{disturbed.Count} disturbed, {Fairness.Check(quiet, disturbed)}";
    }

    private void Check(NbdServerOptions options, long used, int quiet, int disturbed)
    {
        // A tenth for what is kept to be used again: blocks for small messages, and arrays of the pool.
        if (used > options.MaxServerBytesInFlight * 1.10)
        {
            throw new InvalidOperationException(
                $"The process grew by {used >> 20} MiB, the connections may hold {options.MaxServerBytesInFlight >> 20} MiB.");
        }
        if (disturbed < quiet * Share)
        {
            throw new InvalidOperationException($"The bystander was served {disturbed} times, {quiet} times in quiet times.");
        }
    }

    private static bool AsksForPieces(int number) => number % 4 >= 2;

    private static RawClient Ask(FaultServer server, int number, Random random)
    {
        RawClient client = RawClient.Go(number % 2 == 0 ? server.Unix : server.Tcp, receiveBuffer: 4096);
        var requests = new WireBytes();
        // Half of them with pieces of all sizes, which fit into whatever is left.
        for (uint i = 0; i < Depth; i++)
        {
            uint length = AsksForPieces(number) ? Length >> random.Next(17) : Length;
            requests.Raw(WireBytes.Request(Cmd.Read, i, 1 << 30, length));
        }
        client.Send(requests.ToArray());
        return client;
    }

    /// <summary>Takes as little as each client is supposed to.</summary>
    /// <returns>How many seconds after its first reply had begun the last was closed of those that take nothing.</returns>
    private static double Listen(RawClient[] clients, TimeSpan time, TimeSpan stall)
    {
        var watch = Stopwatch.StartNew();
        byte[] buffer = new byte[256 << 10];
        var closed = new bool[clients.Length];
        var since = new double[clients.Length];
        double last = 0;
        int deaf = 0;
        for (int tick = 1; watch.Elapsed < time; tick++)
        {
            for (int i = 0; i < clients.Length; i++)
            {
                if (closed[i])
                {
                    continue;
                }
                if (i % Kinds == 0 && !AsksForPieces(i))
                {
                    // Who waits for memory that others hold has got nothing yet that it could take.
                    since[i] = since[i] == 0 && clients[i].Socket.Available > 0 ? watch.Elapsed.TotalSeconds : since[i];
                    if (IsHungUp(clients[i]))
                    {
                        closed[i] = true;
                        deaf++;
                        last = Math.Max(last, watch.Elapsed.TotalSeconds - since[i]);
                    }
                    else if (since[i] > 0 && watch.Elapsed.TotalSeconds - since[i] > (stall + (2 * ProcessUse.Patience)).TotalSeconds)
                    {
                        throw new InvalidOperationException($"One that takes nothing is still there after {watch.Elapsed.TotalSeconds - since[i]:F1} s.");
                    }
                }
                else if (i % Kinds > 0 && tick % TicksEach == 0)
                {
                    int most = i % Kinds == 1 ? 1 : tick % (5 * TicksEach) == 0 ? buffer.Length : 0;
                    closed[i] = most > 0 && !TryTake(clients[i], buffer.AsSpan(0, most));
                }
            }
            TimeSpan rest = (tick * Tick) - watch.Elapsed;
            if (rest > TimeSpan.Zero)
            {
                Thread.Sleep(rest);
            }
        }
        return deaf > 0 ? last : throw new InvalidOperationException("None of those that take nothing was closed.");
    }

    private static bool TryTake(RawClient client, Span<byte> buffer)
    {
        try
        {
            return !client.Socket.Poll(0, System.Net.Sockets.SelectMode.SelectRead) || client.Socket.Receive(buffer) > 0;
        }
        catch (System.Net.Sockets.SocketException)
        {
            return false;
        }
    }

    /// <summary>Whether the server has gone, told without taking what it sent: nobody reads what is sent to it.</summary>
    private static bool IsHungUp(RawClient client)
    {
        try
        {
            client.Socket.Blocking = false;
            // The request of no bytes is refused by nobody; it only shows that somebody is there.
            _ = client.Socket.Send(WireBytes.Request(Cmd.Flush, 1, 0, 0));
            return false;
        }
        catch (System.Net.Sockets.SocketException e)
        {
            return e.SocketErrorCode != System.Net.Sockets.SocketError.WouldBlock;
        }
        finally
        {
            client.Socket.Blocking = true;
        }
    }

    private static ValueTask FillAsync(Memory<byte> buffer, long offset, CancellationToken token)
    {
        buffer.Span.Fill(0xA5);
        return default;
    }
}
