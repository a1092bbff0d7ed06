using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Compare;

/// <summary>Measures nbdkit, qemu-nbd and this project on the same work in one run.</summary>
internal static class CompareMode
{
    private const string Section = "compare";
    private const int UsualRounds = 5;
    private const double UsualSeconds = 1.5;

    public static string Run(Settings settings)
    {
        int rounds = settings.Rounds(UsualRounds);
        TimeSpan duration = settings.Duration(UsualSeconds);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds of {duration.TotalSeconds} s, over a Unix socket");
        using var scratch = new Scratch(settings.Directory);
        IReadOnlyList<Scenario> scenarios = Scenarios.All(settings, scratch);
        Scenario[] wanted = [.. scenarios.Select(scenario => scenario.Restrict(settings.Only)).OfType<Scenario>()];
        if (wanted.Length == 0)
        {
            string known = string.Join(", ", scenarios.SelectMany(s => s.Works.Select(work => work.Name).Prepend(s.Name)));
            throw new UsageException($"--only: there is no such work or subject; known: {known}");
        }
        Comparison[] comparisons = [.. wanted.Select(scenario => Comparison.Run(scenario, scratch, rounds, duration))];
        string ratios = CompareReport.Ratios(comparisons);
        if (settings.WritesReadme)
        {
            ResultsFile.Write(
                Path.Combine(Repository.Root, "README.md"), Section, $"Measured on {DateTime.UtcNow:yyyy-MM-dd}: {Machine.Summary}.\n\n{ratios}");
        }
        return $"""
            ## Compared with its peers

            {machine}
            Speed and CPU are ratios, ours to theirs: speed should be high, processor time of the server for a request low.
            Of qemu-nbd the fastest of its modes counts.

            {ratios}The figures behind them, for {string.Concat(comparisons.Select(CompareReport.Details))}
            """;
    }
}
