using System.Text;
using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Report;

namespace NbdKit.Benchmarks.Compare;

/// <summary>Comparisons as Markdown.</summary>
internal static class CompareReport
{
    /// <summary>One table of ratios for all that have the same kind of peers; what stands for itself has its own.</summary>
    public static string Ratios(IReadOnlyList<Comparison> comparisons)
    {
        var text = new StringBuilder();
        foreach (IGrouping<bool, Comparison> group in comparisons.GroupBy(c => c.Scenario.Peers.Contains("no filter")))
        {
            string[] peers = [.. group.SelectMany(comparison => comparison.Scenario.Peers).Distinct()];
            var table = new MarkdownTable(
                ["work", "requests/s", "CPU µs/request", .. peers.SelectMany(peer => (string[])[$"× {peer}: speed", "CPU"])]);
            foreach (Comparison comparison in group)
            {
                foreach (Work work in comparison.Scenario.Works)
                {
                    table.Add(Row(comparison, work, peers));
                }
            }
            text.Append(table).Append('\n');
        }
        return text.ToString();
    }

    /// <summary>The figures behind the ratios.</summary>
    public static string Details(Comparison comparison)
    {
        var table = new MarkdownTable("work, server", "requests/s", "CPU µs/request", "MiB resident");
        foreach (Work work in comparison.Scenario.Works)
        {
            foreach (Contestant contestant in comparison.Contestants)
            {
                LoadResult result = comparison.Median(work, contestant);
                table.Add(
                    $"{work.Name}, {contestant.Name}",
                    Figures.Count(result.RequestsPerSecond),
                    Figures.Fine(result.CpuMicroseconds),
                    Figures.Mebibytes(result.ResidentBytes));
            }
        }
        return $"{comparison.Scenario.Description}:\n\n{table}\n";
    }

    private static string[] Row(Comparison comparison, Work work, string[] peers)
    {
        LoadResult ours = comparison.Best(work, Contestant.OursColumn)!.Value;
        var cells = new List<string>
        {
            work.Name, Figures.Count(ours.RequestsPerSecond), Figures.Fine(ours.CpuMicroseconds),
        };
        foreach (LoadResult? theirs in peers.Select(peer => comparison.Best(work, peer)))
        {
            cells.Add(theirs is null ? "" : Figures.Ratio(ours.RequestsPerSecond, theirs.Value.RequestsPerSecond));
            cells.Add(theirs is null ? "" : Figures.Ratio(ours.CpuMicroseconds, theirs.Value.CpuMicroseconds));
        }
        return [.. cells];
    }
}
