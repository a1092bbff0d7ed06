using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Compare;

/// <summary>What was measured in a scenario: medians for every work and server.</summary>
internal sealed class Comparison
{
    private readonly Dictionary<(string Work, string Contestant), List<LoadResult>> _results = [];
    private readonly List<Contestant> _running;

    private Comparison(Scenario scenario)
    {
        Scenario = scenario;
        _running = [.. scenario.Contestants];
    }

    public Scenario Scenario { get; }

    /// <summary>The servers that could be started.</summary>
    public IReadOnlyList<Contestant> Contestants => _running;

    /// <summary>Runs all servers in turn, round after round, each as a fresh process.</summary>
    public static Comparison Run(Scenario scenario, Scratch scratch, int rounds, TimeSpan duration)
    {
        var comparison = new Comparison(scenario);
        for (int round = 0; round < rounds; round++)
        {
            foreach (Contestant contestant in scenario.Contestants)
            {
                if (comparison._running.Contains(contestant))
                {
                    Console.Error.WriteLine($"{scenario.Name}, round {round + 1} of {rounds}: {contestant.Name}");
                    comparison.Run(contestant, scratch, duration);
                }
            }
        }
        return comparison;
    }

    public LoadResult Median(Work work, Contestant contestant) => LoadResult.Median(_results[(work.Name, contestant.Name)]);

    /// <summary>The best server of a column, or null if none could be started.</summary>
    public LoadResult? Best(Work work, string column)
    {
        LoadResult? best = null;
        foreach (Contestant contestant in _running.Where(contestant => contestant.Column == column))
        {
            LoadResult median = Median(work, contestant);
            if (best is null || median.RequestsPerSecond > best.Value.RequestsPerSecond)
            {
                best = median;
            }
        }
        return best;
    }

    private void Run(Contestant contestant, Scratch scratch, TimeSpan duration)
    {
        ServerProcess server;
        try
        {
            server = ServerProcess.Start(contestant.Command(scratch));
        }
        catch (InvalidOperationException e) when (contestant.Column != Contestant.OursColumn)
        {
            // A peer may lack a mode, or may not be allowed to use it here.
            Console.Error.WriteLine($"{contestant.Name} is left out. {e.Message}");
            _running.Remove(contestant);
            return;
        }
        using (server)
        {
            if (Scenario.Fills)
            {
                LoadRun.WriteWhole(server);
            }
            foreach (Work work in Scenario.Works)
            {
                if (!_results.TryGetValue((work.Name, contestant.Name), out List<LoadResult>? results))
                {
                    _results.Add((work.Name, contestant.Name), results = []);
                }
                results.Add(LoadRun.MeasureWarm(server, work, duration));
            }
        }
    }
}
