using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

public sealed class LastLeaverTests
{
    [Test]
    [Property("Threat", "N13")]
    public void Who_leaves_after_the_end_sets_no_timer()
    {
        var time = new FakeTimeProvider();
        var leaver = new LastLeaver(TimeSpan.FromHours(1), time);
        leaver.Left(() => { });
        Assert.That(time.PendingTimers, Is.EqualTo(1));
        leaver.Dispose();
        leaver.Left(() => Assert.Fail("nobody waits for this any more"));
        Assert.That(time.PendingTimers, Is.Zero);
        time.Advance(TimeSpan.FromHours(2));
    }
}
