using NbdKit.Benchmarks.Compare;
using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>The same work over each way to a server.</summary>
internal static class TransportsMode
{
    private const long DiskBytes = 256 << 20;

    public static string Run(Settings settings)
    {
        int rounds = settings.Rounds(3);
        TimeSpan duration = settings.Duration(1);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds of {duration.TotalSeconds} s; the library with `memory`");
        var scenario = new Scenario(
            "transports",
            "memory",
            [
                new(Contestant.OursColumn, "Unix socket", s => ServerCommand.Library(s.NewSocket(), DiskBytes)),
                new(Contestant.OursColumn, "TCP, loopback", _ => ServerCommand.Library(Scratch.NewPort(), DiskBytes)),
                new(Contestant.OursColumn, "Stream", s => ServerCommand.Library(s.NewSocket(), DiskBytes, asStream: true)),
            ],
            Work.All)
        {
            Fills = true,
        };
        using var scratch = new Scratch(settings.Directory);
        Comparison comparison = Comparison.Run(scenario, scratch, rounds, duration);
        return $"""
            ## Transports

            {machine}
            The Stream is a NetworkStream of a Unix socket, which the library knows nothing about. Ratios are to the Unix socket.

            {Table(comparison)}
            """;
    }

    private static MarkdownTable Table(Comparison comparison)
    {
        Contestant first = comparison.Contestants[0];
        Contestant[] others = [.. comparison.Contestants.Skip(1)];
        var table = new MarkdownTable(
            ["work", $"{first.Name}: requests/s", "CPU µs/request", .. others.SelectMany(o => (string[])[$"{o.Name}: requests/s", "speed", "CPU"])]);
        foreach (Work work in comparison.Scenario.Works)
        {
            LoadResult baseline = comparison.Median(work, first);
            var cells = new List<string>
            {
                work.Name, Figures.Count(baseline.RequestsPerSecond), Figures.Fine(baseline.CpuMicroseconds),
            };
            foreach (LoadResult result in others.Select(other => comparison.Median(work, other)))
            {
                cells.AddRange(
                [
                    Figures.Count(result.RequestsPerSecond),
                    Figures.Ratio(result.RequestsPerSecond, baseline.RequestsPerSecond),
                    Figures.Ratio(result.CpuMicroseconds, baseline.CpuMicroseconds),
                ]);
            }
            table.Add([.. cells]);
        }
        return table;
    }
}
