namespace NbdKit.Tests.Faults;

/// <summary>A stack and the steps that are run on it.</summary>
/// <param name="Seed">What it was drawn with.</param>
/// <param name="Stack">The stack.</param>
/// <param name="Steps">The steps in order.</param>
/// <param name="HasFaults">Whether changes and flushes of the disks fail now and then.</param>
internal sealed record PowerCutHistory(int Seed, PowerCutStack Stack, IReadOnlyList<PowerCutStep> Steps, bool HasFaults)
{
    public const int Sectors = 128;

    /// <summary>The contexts; the last one is read-only, and can flush all the same.</summary>
    public const int Contexts = 3;

    public const int StepCount = 200;

    public static PowerCutHistory Draw(int seed)
    {
        var random = new Random(seed);
        var stack = new PowerCutStack(random);
        bool concurrent = random.Next(3) == 0;
        // A mirror drops a member that fails, which nobody judges any more.
        bool hasFaults = stack.Members == 1 && random.Next(3) == 0;
        return new PowerCutHistory(seed, stack, PowerCutStep.Draw(random, StepCount, Contexts, Sectors, concurrent), hasFaults);
    }
}
