using System.Collections.Concurrent;
using System.Diagnostics;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>1,000 clients with 32 reads in flight each go at once, again and again.</summary>
internal sealed class CancellationStorm : Fault
{
    private const int InFlight = 32;

    private readonly ConcurrentDictionary<long, long> _fired = new();
    private int _running;

    public override string Id => "F10";

    public override string Title => "cancellation storm";

    /// <summary>How many clients there are.</summary>
    public int Clients { get; init; } = 1_000;

    public override async Task<string> RunAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors((2 * Clients) + 500);
        int rounds = (int)run.Size(10, 1_000);
        using var arrays = new RentedArrays(128 << 10);
        string said;
        await using (FaultServer server = await FaultServer.StartAsync(
            HangAsync, new NbdServerOptions { MaxConnections = Clients + 10, MaxServerBytesInFlight = 16L << 30 }))
        {
            said = await StormAsync(server, rounds);
            server.Log.AssertClean();
        }
        arrays.AssertBalanced();
        return said;
    }

    private async Task<string> StormAsync(FaultServer server, int rounds)
    {
        var slowest = new List<double>();
        TimeSpan longest = TimeSpan.Zero;
        TimeSpan cpu = TimeSpan.Zero;
        long early = 0;
        long late = 0;
        var quiet = await server.QuietAsync(TimeSpan.FromSeconds(1));
        double alone = await AloneAsync(server);
        await using Bystander bystander = await server.BystanderAsync();
        for (int round = 1; round <= rounds; round++)
        {
            RawClient[] clients = [.. Enumerable.Range(0, Clients).Select(i => Begin(server, i))];
            await ProcessUse.UntilAsync(
                () => Volatile.Read(ref _running) == Clients * InFlight,
                20 * ProcessUse.Patience,
                () => $"{_running} of {Clients * InFlight} reads began");
            _fired.Clear();
            long[] dropped = new long[Clients];
            TimeSpan cpuBefore = ProcessUse.Cpu;
            for (int i = 0; i < Clients; i++)
            {
                dropped[i] = Stopwatch.GetTimestamp();
                clients[i].Drop();
            }
            longest = TimeSpan.FromTicks(Math.Max(longest.Ticks, (await ProcessUse.UntilAsync(
                () => Volatile.Read(ref _running) == 0 && server.Server.Connections.Count == 1,
                2 * ProcessUse.Patience,
                () => $"after 2 s {_running} reads and {server.Server.Connections.Count} connections are still there")).Ticks));
            cpu = TimeSpan.FromTicks(Math.Max(cpu.Ticks, (ProcessUse.Cpu - cpuBefore).Ticks));
            slowest.AddRange(Enumerable.Range(0, Clients).Select(i => Stopwatch.GetElapsedTime(dropped[i], _fired[i]).TotalMilliseconds));
            if (round == Math.Max(1, Math.Min(10, rounds / 2)))
            {
                early = ProcessUse.HeapBytes();
            }
        }
        var disturbed = await bystander.EndAsync();
        late = ProcessUse.HeapBytes();
        if (late > (early * 1.05) + (1 << 20))
        {
            throw new InvalidOperationException($"The heap grew from {early} to {late} bytes.");
        }
        slowest.Sort();
        double p99 = slowest[(slowest.Count - 1) * 99 / 100];
        return $"{rounds} rounds of {Clients} x {InFlight}, tokens after {alone:F1} ms for one client, {slowest[slowest.Count / 2]:F0} ms "
            + $"(p99 {p99:F0}) when all go, all done after {longest.TotalMilliseconds:F0} ms and {cpu.TotalMilliseconds:F0} ms of processors, "
            + $"heap {early >> 10} to {late >> 10} KiB, {Fairness.Check(quiet, disturbed)}";
    }

    /// <summary>How long after one client went the tokens of its reads fire: of a few, the one in the middle.</summary>
    private async Task<double> AloneAsync(FaultServer server)
    {
        var times = new List<double>();
        for (int i = 0; i < 9; i++)
        {
            _fired.Clear();
            RawClient client = Begin(server, i);
            await ProcessUse.UntilAsync(
                () => Volatile.Read(ref _running) == InFlight, ProcessUse.Patience, () => $"{_running} of {InFlight} reads began");
            long dropped = Stopwatch.GetTimestamp();
            client.Drop();
            await ProcessUse.UntilAsync(
                () => Volatile.Read(ref _running) == 0, ProcessUse.Patience, () => $"{_running} reads of one client did not end");
            times.Add(Stopwatch.GetElapsedTime(dropped, _fired[i]).TotalMilliseconds);
        }
        times.Sort();
        return times[times.Count / 2] <= 100 + MachineLag.Longest.TotalMilliseconds
            ? times[times.Count / 2]
            : throw new InvalidOperationException($"The tokens fired {times[times.Count / 2]:F0} ms after their client had gone.");
    }

    /// <summary>A client whose reads carry its number in their offsets.</summary>
    private static RawClient Begin(FaultServer server, int number)
    {
        RawClient client = RawClient.Go(number % 2 == 0 ? server.Unix : server.Tcp);
        var requests = new WireBytes();
        for (uint i = 0; i < InFlight; i++)
        {
            // Every fourth is large and has memory of its own.
            requests.Raw(WireBytes.Request(Cmd.Read, i, Place(number), i % 4 == 0 ? 128u << 10 : 512u));
        }
        client.Send(requests.ToArray());
        return client;
    }

    private static ulong Place(int number) => (ulong)(number + 1) << 24;

    private async ValueTask HangAsync(Memory<byte> buffer, long offset, CancellationToken token)
    {
        Interlocked.Increment(ref _running);
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using CancellationTokenRegistration registration = token.UnsafeRegister(
            _ =>
            {
                _fired.TryAdd((offset >> 24) - 1, Stopwatch.GetTimestamp());
                ended.TrySetCanceled(token);
            },
            null);
        try
        {
            await ended.Task;
        }
        finally
        {
            Interlocked.Decrement(ref _running);
        }
    }
}
