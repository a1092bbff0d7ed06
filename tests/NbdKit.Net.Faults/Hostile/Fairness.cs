namespace NbdKit.Faults.Hostile;

/// <summary>Judges how a bystander was served.</summary>
internal static class Fairness
{
    /// <summary>
    /// What counts as served well however quiet the machine was before: those who attack and the bystander share this process and
    /// its processors with the server.
    /// </summary>
    public const double GoodMilliseconds = 250;

    /// <summary>Fails if 99 of 100 reads took more than twice as long as in quiet times, and long.</summary>
    public static string Check((int Count, double P99, double Longest) quiet, (int Count, double P99, double Longest) disturbed)
        => disturbed.P99 <= Math.Max(2 * quiet.P99, GoodMilliseconds)
            ? $"bystander p99 {quiet.P99:F2} ms quiet, {disturbed.P99:F2} ms disturbed, longest {disturbed.Longest:F0} ms"
            : throw new InvalidOperationException(
                $"99 of 100 reads of the bystander took {disturbed.P99:F1} ms, {quiet.P99:F1} ms in quiet times.");
}
