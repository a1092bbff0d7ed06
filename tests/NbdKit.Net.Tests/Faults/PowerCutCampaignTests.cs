using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Faults;

public sealed class PowerCutCampaignTests
{
    [Test]
    public async Task What_was_flushed_outlives_a_power_cut([Values(1, 1_000_001)] int seed)
    {
        int states = Peer.IsLongRun ? 100_000 : 3000;
        PowerCutReport report = await PowerCutCampaign.RunAsync(states, seed);
        TestContext.Out.WriteLine(report);
        Assert.That(report.Violations, Is.Empty, report.ToString());
        Assert.That(report.States, Is.GreaterThanOrEqualTo(states));
    }
}
