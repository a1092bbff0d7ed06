using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Servers are stopped while 500 clients have requests in flight, some for ever, and 100 are in the middle of a handshake.</summary>
internal sealed class ShutdownDrain : Fault
{
    private const int Clients = 500;
    private const int HalfOpen = 100;
    private const int InFlight = 16;
    private const int Stuck = 10;
    private const uint Length = 512;
    private const int HeaderSize = 16;
    private const uint Shutdown = 108;

    // What a stop may take beyond its limit: the layers' last moment, and the processors' time.
    private static readonly TimeSpan LastMoment = TimeSpan.FromMilliseconds(500);

    private readonly TaskCompletionSource _never = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly long[] _seen = new long[3];
    private TaskCompletionSource _released = new();
    private int _begun;

    public override string Id => "F11";

    public override string Title => "shutdown drain";

    public override async Task<string> RunAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors((2 * (Clients + HalfOpen)) + 500);
        int cycles = (int)run.Size(50, 2_000);
        TimeSpan longest = TimeSpan.Zero;
        for (int cycle = 0; cycle < cycles; cycle++)
        {
            // The first with the limit that is the default, the others with one that does not make the row slow.
            TimeSpan limit = cycle == 0 ? TimeSpan.FromSeconds(5) : TimeSpan.FromSeconds(1);
            TimeSpan over = await CycleAsync(run.Random(cycle), limit, cycle % 2 == 0) - limit;
            longest = over > longest ? over : longest;
        }
        return $"{cycles} stops, {_seen[0]} requests answered, {_seen[1]} refused, {_seen[2]} closed; "
            + $"at most {longest.TotalMilliseconds:F0} ms beyond the limit";
    }

    private async Task<TimeSpan> CycleAsync(Random random, TimeSpan limit, bool stuck)
    {
        _begun = 0;
        _released = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        int opened = 0;
        int closed = 0;
        FaultServer server = await FaultServer.StartAsync(
            new Plugins.DelegatePlugin
            {
                ThreadModel = ThreadModel.Parallel,
                Size = FaultServer.Size,
                Open = (_, _) =>
                {
                    Interlocked.Increment(ref opened);
                    return default;
                },
                Close = () =>
                {
                    Interlocked.Increment(ref closed);
                    return default;
                },
                Read = AnswerAsync,
            },
            new NbdServerOptions { MaxConnections = Clients + HalfOpen, StopTimeout = limit });
        var clients = new List<RawClient>();
        var half = new List<RawClient>();
        TimeSpan took;
        try
        {
            for (int i = 0; i < Clients; i++)
            {
                clients.Add(RawClient.Go(i % 2 == 0 ? server.Unix : server.Tcp));
            }
            for (int i = 0; i < HalfOpen; i++)
            {
                half.Add(HalfOpenHandshakes.Begin(i % 2 == 0 ? server.Unix : server.Tcp, random.Next(HalfOpenHandshakes.PlainStates)));
            }
            Task<int>[] answers = [.. clients.Select((client, i) => AnswersAsync(client, stuck && i < Stuck, random.Next()))];
            await Task.Delay(random.Next(100));
            int begun = Volatile.Read(ref _begun);
            var watch = Stopwatch.StartNew();
            Task stopping = server.Server.StopAsync();
            Task again = server.Server.StopAsync();
            await stopping;
            took = watch.Elapsed;
            await again;
            await server.Server.DisposeAsync();
            int[] answered = await Task.WhenAll(answers).WaitAsync(20 * ProcessUse.Patience);
            Check(limit, took, stuck, begun, answered.Sum());
            await ProcessUse.UntilAsync(
                () => half.All(client => client.IsClosed()), ProcessUse.Patience, () => "a client in its handshake was not closed");
        }
        finally
        {
            // What was stuck for ever comes back: its layers are closed only now.
            _released.TrySetResult();
            clients.ForEach(client => client.Dispose());
            half.ForEach(client => client.Dispose());
        }
        await ProcessUse.UntilAsync(
            () => Volatile.Read(ref opened) == Volatile.Read(ref closed),
            5 * ProcessUse.Patience,
            () => $"{opened} opens, {closed} closes");
        await server.DisposeAsync();
        server.Log.AssertClean();
        return took;
    }

    private static void Check(TimeSpan limit, TimeSpan took, bool stuck, int begun, int answered)
    {
        if (took > limit + (2 * LastMoment) + MachineLag.Longest)
        {
            throw new InvalidOperationException($"The stop took {took.TotalMilliseconds:F0} ms with a limit of {limit.TotalMilliseconds} ms.");
        }
        int lost = stuck ? Stuck * InFlight : 0;
        if (answered < begun - lost)
        {
            throw new InvalidOperationException($"Of {begun} requests that had begun only {answered} were answered (limit {limit.TotalSeconds} s, stuck: {stuck}).");
        }
    }

    /// <summary>Asks, and takes what comes to the end.</summary>
    /// <returns>How many requests were answered.</returns>
    private async Task<int> AnswersAsync(RawClient client, bool stuck, int seed)
    {
        var random = new Random(seed);
        var requests = new WireBytes();
        for (uint i = 0; i < InFlight; i++)
        {
            // The offset says how many milliseconds the answer takes; the stuck never answer.
            ulong offset = stuck ? 1UL << 30 : (ulong)random.Next(201) * 512;
            requests.Raw(WireBytes.Request(Cmd.Read, i, offset, Length));
        }
        client.Send(requests.ToArray());
        var seen = new HashSet<ulong>();
        await using var stream = new NetworkStream(client.Socket, ownsSocket: false);
        byte[] buffer = new byte[HeaderSize + Length];
        try
        {
            while (await stream.ReadAtLeastAsync(buffer.AsMemory(0, HeaderSize), HeaderSize, throwOnEndOfStream: false) is HeaderSize)
            {
                uint error = System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(buffer.AsSpan(4));
                ulong cookie = System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(buffer.AsSpan(8));
                if (System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(buffer) != Magic.SimpleReply
                    || cookie >= InFlight
                    || error is not (0 or Shutdown)
                    || !seen.Add(cookie))
                {
                    throw new InvalidOperationException($"A reply that answers nothing: error {error}, cookie {cookie}.");
                }
                if (error == 0)
                {
                    await stream.ReadExactlyAsync(buffer.AsMemory(HeaderSize));
                }
                Interlocked.Increment(ref _seen[error == 0 ? 0 : 1]);
            }
        }
        catch (Exception e) when (e is IOException or EndOfStreamException)
        {
            // The server cut it, as it does with what is stuck.
        }
        Interlocked.Add(ref _seen[2], InFlight - seen.Count);
        return seen.Count;
    }

    private async ValueTask AnswerAsync(Memory<byte> buffer, long offset, CancellationToken token)
    {
        Interlocked.Increment(ref _begun);
        if (offset >= 1 << 30)
        {
            // Heeds no token.
            await Task.WhenAny(_never.Task, _released.Task);
            return;
        }
        await Task.Delay((int)(offset / 512), token);
        buffer.Span.Clear();
    }
}
