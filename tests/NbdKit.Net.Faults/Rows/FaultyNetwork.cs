using System.Diagnostics;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;

namespace NbdKit.Faults.Rows;

/// <summary>Clients write and read what they wrote through networks that crawl, delay, cut and swallow.</summary>
internal sealed class FaultyNetwork : Fault
{
    private const int Workers = 4;
    private const int Region = 1 << 20;
    private const int MostBytes = 64 << 10;

    private static readonly TimeSpan Stall = TimeSpan.FromSeconds(2);

    public override string Id => "F07";

    public override string Title => "faulty network";

    public override async Task<string> RunAsync(FaultRun run)
    {
        var time = TimeSpan.FromSeconds(run.Size(10, 300));
        WireFault[] faults = Enum.GetValues<WireFault>();
        await using FaultServer server = await FaultServer.StartAsync(
            new MemoryPlugin { Size = (long)Region * Workers * faults.Length }, new NbdServerOptions { StallTimeout = Stall });
        // All at once: most of the time of most of them is waiting.
        string[] said = await Task.WhenAll(faults.Select((fault, i) => MixAsync(server, fault, i, time, run.Random(i))));
        server.Log.AssertClean();
        await ProcessUse.UntilAsync(
            () => server.Server.Connections.Count == 0,
            Stall + (10 * ProcessUse.Patience),
            () => $"{server.Server.Connections.Count} connections outlived their clients");
        return string.Join(", ", said);
    }

    private static async Task<string> MixAsync(FaultServer server, WireFault fault, int number, TimeSpan time, Random random)
    {
        var counts = new long[3];
        await using (var wire = new FaultyWire(number % 2 == 0 ? server.Tcp : server.Unix, fault, random))
        {
            await Task.WhenAll(Enumerable.Range(0, Workers).Select(i =>
            {
                int seed = random.Next();
                return Task.Run(() => WorkAsync(wire, fault, ((number * Workers) + i) * (long)Region, time, new Random(seed), counts));
            }));
        }
        return counts[0] == 0
            ? throw new InvalidOperationException($"{fault}: nothing got through.")
            : $"{fault} {counts[0]} right, {counts[1]} failed, {counts[2]} connections";
    }

    /// <summary>Writes and reads its part of the disk; what was written when the connection ended may be there or not.</summary>
    private static async Task WorkAsync(FaultyWire wire, WireFault fault, long start, TimeSpan time, Random random, long[] counts)
    {
        byte[] model = new byte[Region];
        bool[] unknown = new bool[Region / 512];
        var watch = Stopwatch.StartNew();
        int most = fault is WireFault.Bytes or WireFault.Slow or WireFault.Fragments ? 2048 : MostBytes;
        var options = new NbdClientOptions { RequestTimeout = Stall + TimeSpan.FromSeconds(2), HandshakeTimeout = TimeSpan.FromSeconds(20) };
        while (watch.Elapsed < time)
        {
            try
            {
                await using NbdClient client = await NbdClient.ConnectAsync(wire.EndPoint, options);
                Interlocked.Increment(ref counts[2]);
                while (watch.Elapsed < time)
                {
                    await StepAsync(client, start, most, model, unknown, random);
                    Interlocked.Increment(ref counts[0]);
                }
            }
            catch (Exception e) when (e is NbdClientException or NbdException && fault is WireFault.HalfClose or WireFault.Reset or WireFault.BlackHole)
            {
                Interlocked.Increment(ref counts[1]);
            }
        }
    }

    private static async Task StepAsync(NbdClient client, long start, int most, byte[] model, bool[] unknown, Random random)
    {
        int length = 512 * (1 + random.Next(most / 512));
        int at = 512 * random.Next((Region - length) / 512);
        byte[] buffer = new byte[length];
        if (random.Next(2) == 0)
        {
            random.NextBytes(buffer);
            unknown.AsSpan(at / 512, length / 512).Fill(true);
            await client.WriteAsync(buffer, start + at);
            buffer.CopyTo(model, at);
            unknown.AsSpan(at / 512, length / 512).Clear();
            return;
        }
        await client.ReadAsync(buffer, start + at);
        for (int i = 0; i < length; i += 512)
        {
            if (!unknown[(at + i) / 512] && !buffer.AsSpan(i, 512).SequenceEqual(model.AsSpan(at + i, 512)))
            {
                throw new InvalidOperationException($"The block at {start + at + i} is not what was written.");
            }
        }
    }
}
