namespace NbdKit.Tests.Faults;

public sealed class PowerCutCampaignTests
{
    [Test]
    [Explicit]
    public async Task Gate()
    {
        var watch = System.Diagnostics.Stopwatch.StartNew();
        PowerCutReport report = await PowerCutCampaign.RunAsync(20_000, 5_000_000);
        TestContext.Out.WriteLine($"{watch.Elapsed} {report}");
        Assert.That(report.Violations, Is.Empty, report.ToString());
    }

    [Test]
    public async Task What_was_flushed_outlives_a_power_cut([Values(1, 1_000_001)] int seed)
    {
        PowerCutReport report = await PowerCutCampaign.RunAsync(3000, seed);
        TestContext.Out.WriteLine(report);
        Assert.That(report.Violations, Is.Empty, report.ToString());
        Assert.That(report.States, Is.GreaterThanOrEqualTo(3000));
    }
}
