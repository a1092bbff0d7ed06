namespace NbdKit.Tests.Faults;

/// <summary>What a campaign found.</summary>
/// <param name="States">How many states were judged.</param>
/// <param name="Histories">Of how many histories.</param>
/// <param name="Violations">The histories that broke a promise, as short as they could be made.</param>
public sealed record PowerCutReport(int States, int Histories, IReadOnlyList<string> Violations)
{
    /// <inheritdoc/>
    public override string ToString()
        => $"{States} states of {Histories} histories, {Violations.Count} violations"
            + string.Concat(Violations.Select(violation => "\n\n" + violation));
}
