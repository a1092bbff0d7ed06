using NbdKit.Benchmarks.Compare;
using NbdKit.Benchmarks.Report;

namespace NbdKit.Benchmarks.Modes;

/// <summary>What this program can measure itself, apart from BenchmarkDotNet.</summary>
/// <param name="Name">What it is called by, and the name of its section of the results.</param>
/// <param name="Help">What it measures.</param>
/// <param name="Measure">Measures it; returns a report.</param>
internal sealed record Mode(string Name, string Help, Func<Settings, string> Measure)
{
    public static IReadOnlyList<Mode> All { get; } =
    [
        new("compare", "nbdkit, qemu-nbd and this project on the same work", CompareMode.Run),
        new("transports", "a Unix socket, TCP and a plain Stream", TransportsMode.Run),
        new("scale", "cost of a request over disk sizes, connections and depths", ScaleMode.Run),
        new("connections", "memory of idle connections, handshakes, fairness", ConnectionsMode.Run),
        new("start", "time until the first answered read", StartMode.Run),
        new("client", "the client of this project beside nbdcopy", ClientMode.Run),
        new("sparse", "holes told as holes, and sent as zeroes", SparseMode.Run),
        new("attacks", "what hostile clients do to each server", AttacksMode.Run),
        new("copy", "nbdcopy and qemu-img convert of a half-sparse image", CopyMode.Run),
    ];

    public void Run(Settings settings)
    {
        string report = Measure(settings);
        Console.WriteLine(report);
        if (settings.Output is { } path)
        {
            ResultsFile.Write(path, Name, report);
        }
    }
}
