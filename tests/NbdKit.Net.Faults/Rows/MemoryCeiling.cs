using NbdKit.Faults.Hostile;

namespace NbdKit.Faults.Rows;

/// <summary>The rows that cost memory, in a process whose heap may have 256 MiB.</summary>
internal sealed class MemoryCeiling : Fault
{
    private const int Heap = 256 << 20;

    // What each handshake may hold before it is known who asks.
    private const int MostEach = 32 << 10;
    private const int HalfOpen = 2_000;

    public override string Id => "F14";

    public override string Title => "memory ceilings";

    // The runtime reads it as hexadecimal.
    public override IReadOnlyDictionary<string, string> Environment { get; } = new Dictionary<string, string>
    {
        ["DOTNET_GCHeapHardLimit"] = Heap.ToString("x", System.Globalization.CultureInfo.InvariantCulture),
    };

    public override async Task<string> RunAsync(FaultRun run)
    {
        long ceiling = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        if (ceiling > Heap)
        {
            throw new InvalidOperationException($"The heap may have {ceiling} bytes: the limit did not arrive.");
        }
        // What is outside of the heap counts too: the whole process may have twice as much, or is killed.
        using MemoryGroup? group = MemoryGroup.TryEnter(2L * Heap, out string reason);
        string each = await HandshakesAsync(run);
        // A server for so small a heap is told so; the default would let clients hold twice as much as there is.
        Fault[] rows =
        [
            new HalfOpenHandshakes { Clients = 500 },
            new LiveStreams(),
            new CancellationStorm { Clients = 40 },
            new DeafReaders { Budget = 64 << 20, Share = 0.3 },
            new OptionFloods { Clients = 200 },
        ];
        FaultRun small = run with { Count = run.IsRelease ? null : 0 };
        int[] counts = [500, 4_000, 3, 12, 200];
        string live = "";
        for (int i = 0; i < rows.Length; i++)
        {
            try
            {
                string said = await rows[i].RunAsync(run.IsRelease ? run : small with { Count = counts[i] });
                live = rows[i] is LiveStreams ? said : live;
            }
            catch (Exception e) when (e is not FaultSkippedException)
            {
                throw new InvalidOperationException($"{rows[i].Id} with a heap of {Heap >> 20} MiB: {e.Message}", e);
            }
        }
        return $"{string.Join(", ", rows.Select(row => row.Id))} with a heap of {Heap >> 20} MiB, {each}, {live}, "
            + (group is null ? $"NO control group: {reason}" : $"in a control group of {2 * Heap >> 20} MiB");
    }

    private static async Task<string> HandshakesAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors((2 * HalfOpen) + 500);
        await using FaultServer server = await FaultServer.StartAsync(
            (_, _, _) => default, new NbdServerOptions { MaxConnections = HalfOpen + 10, HandshakeTimeout = TimeSpan.FromMinutes(5) });
        Random random = run.Random();
        var clients = new List<RawClient>();
        try
        {
            for (int i = 0; i < 20; i++)
            {
                clients.Add(HalfOpenHandshakes.Begin(server.Unix, i % HalfOpenHandshakes.PlainStates));
            }
            long before = ProcessUse.HeapBytes();
            for (int i = 0; i < HalfOpen - 20; i++)
            {
                clients.Add(HalfOpenHandshakes.Begin(
                    i % 2 == 0 ? server.Unix : server.Tcp, random.Next(HalfOpenHandshakes.PlainStates)));
            }
            long each = (ProcessUse.HeapBytes() - before) / (HalfOpen - 20);
            return each <= MostEach
                ? $"{each} bytes for each of {HalfOpen} handshakes"
                : throw new InvalidOperationException($"Each handshake that had begun held {each} bytes.");
        }
        finally
        {
            clients.ForEach(client => client.Dispose());
        }
    }
}
