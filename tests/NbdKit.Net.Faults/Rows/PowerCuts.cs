using NbdKit.Tests.Faults;

namespace NbdKit.Faults.Rows;

/// <summary>The power cut under stacks of layers at any moment of random histories.</summary>
internal sealed class PowerCuts : Fault
{
    public override string Id => "F06";

    public override string Title => "power cuts";

    public override async Task<string> RunAsync(FaultRun run)
    {
        PowerCutReport report = await PowerCutCampaign.RunAsync((int)run.Size(20_000, 1_000_000), run.Seed);
        return report.Violations.Count == 0 ? report.ToString() : throw new InvalidOperationException(report.ToString());
    }
}
