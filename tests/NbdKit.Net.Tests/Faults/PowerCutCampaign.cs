using System.Text;

namespace NbdKit.Tests.Faults;

/// <summary>
/// Cuts the power under stacks of layers, thousands of times a second, and looks whether all is there that was promised: what
/// was acknowledged before a flush that was acknowledged, and what was acknowledged with FUA.
/// </summary>
public static class PowerCutCampaign
{
    // So many histories that go wrong say enough.
    private const int MostViolations = 3;

    private const int Density = 6;

    /// <summary>Runs histories until so many states were judged.</summary>
    /// <param name="states">How many states.</param>
    /// <param name="seed">The seed of the first history; the next has the next number.</param>
    public static async Task<PowerCutReport> RunAsync(int states, int seed)
    {
        int judged = 0;
        int histories = 0;
        var violations = new List<string>();
        while (judged < states && violations.Count < MostViolations)
        {
            PowerCutHistory history = PowerCutHistory.Draw(unchecked(seed + histories++));
            var run = new PowerCutRun(history, Density);
            await run.RunAsync();
            judged += run.States;
            if (run.Violation is { } violation)
            {
                violations.Add(run.Hangs ? Describe(history, violation, violation) : await ShortenAsync(history, violation));
            }
        }
        return new PowerCutReport(judged, histories, violations);
    }

    /// <summary>Makes a history shorter for as long as it goes wrong, with more cuts than before.</summary>
    private static async Task<string> ShortenAsync(PowerCutHistory history, string violation)
    {
        string first = violation;
        for (int piece = history.Steps.Count / 2; piece > 0; piece /= 2)
        {
            for (int at = 0; at < history.Steps.Count;)
            {
                PowerCutHistory shorter = history with { Steps = [.. history.Steps.Take(at), .. history.Steps.Skip(at + piece)] };
                if (await ViolationOfAsync(shorter) is { } found)
                {
                    (history, violation) = (shorter, found);
                }
                else
                {
                    at += piece;
                }
            }
        }
        return Describe(history, first, violation);
    }

    private static string Describe(PowerCutHistory history, string first, string last)
    {
        var text = new StringBuilder();
        text.AppendLine($"seed {history.Seed}, {history.Stack}{(history.HasFaults ? ", disks that fail" : "")}");
        text.AppendLine($"at first: {first}");
        text.AppendLine($"at last: {last}");
        foreach (PowerCutStep step in history.Steps)
        {
            text.AppendLine(step.ToString());
        }
        return text.ToString();
    }

    private static async Task<string?> ViolationOfAsync(PowerCutHistory history)
    {
        for (int i = 0; i < 4; i++)
        {
            // Another seed for the cuts alone.
            var run = new PowerCutRun(history with { Seed = unchecked(history.Seed + (i * 7919)) }, 1);
            await run.RunAsync();
            if (run.Violation is not null)
            {
                return run.Violation;
            }
        }
        return null;
    }
}
