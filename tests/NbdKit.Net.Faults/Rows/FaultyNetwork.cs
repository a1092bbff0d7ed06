using NbdKit.Faults.Hostile;
using NbdKit.Plugins;

namespace NbdKit.Faults.Rows;

/// <summary>Clients write and read what they wrote through networks that crawl, delay, cut, lose and swallow.</summary>
internal sealed class FaultyNetwork : Fault
{
    private static readonly TimeSpan Stall = TimeSpan.FromSeconds(2);

    public override string Id => "F07";

    public override string Title => "faulty network";

    public override async Task<string> RunAsync(FaultRun run)
    {
        var time = TimeSpan.FromSeconds(run.Size(10, 300));
        ClientVariant[] variants = Enum.GetValues<ClientVariant>();
        var said = new List<string>();
        if (run.IsRelease)
        {
            foreach (ClientVariant variant in variants)
            {
                said.AddRange(await MixesAsync(_ => variant, time, run));
            }
        }
        else
        {
            // Each fault in one of the ways to connect; another seed pairs them otherwise.
            int turn = run.Random(-1).Next(variants.Length);
            said.AddRange(await MixesAsync(i => variants[(i + turn) % variants.Length], time, run));
        }
        return $"{said.Count} mixes: {string.Join(", ", said)}";
    }

    /// <summary>All at once: most of the time of most of them is waiting.</summary>
    private static async Task<IEnumerable<string>> MixesAsync(Func<int, ClientVariant> variant, TimeSpan time, FaultRun run)
    {
        WireFault[] faults = Enum.GetValues<WireFault>();
        Task<string[]> lossy = Task.WhenAll(LossyNetwork.Faults.Select(
            (fault, i) => LossyNetwork.RunAsync(fault, (int)variant(i), time, run.Random(faults.Length + i).Next())));
        string[] wires = await Task.WhenAll(faults.Select((fault, i) => MixAsync(fault, i, variant(i), time, run.Random(i))));
        return wires.Concat(await lossy);
    }

    private static async Task<string> MixAsync(WireFault fault, int number, ClientVariant variant, TimeSpan time, Random random)
    {
        await using FaultServer server = await FaultServer.StartAsync(
            new MemoryPlugin { Size = TaggedWork.Bytes }, variant.Serving() with { StallTimeout = Stall });
        bool mayFail = fault is WireFault.ClientHalfClose or WireFault.ServerHalfClose or WireFault.Reset or WireFault.BlackHole;
        int most = fault is WireFault.Bytes or WireFault.Slow or WireFault.Fragments ? 2048 : 64 << 10;
        var work = new TaggedWork($"{fault} {variant}", variant.Connecting(Stall + TimeSpan.FromSeconds(2)), mayFail, most);
        string said;
        await using (var wire = new FaultyWire(number % 2 == 0 ? server.Tcp : server.Unix, fault, random))
        {
            said = await work.RunAsync(wire.EndPoint, 0, time, random);
        }
        await ProcessUse.UntilAsync(
            () => server.Server.Connections.Count == 0,
            Stall + (10 * ProcessUse.Patience),
            () => $"{fault}: {server.Server.Connections.Count} connections outlived their clients");
        server.Log.AssertClean();
        return said;
    }
}
