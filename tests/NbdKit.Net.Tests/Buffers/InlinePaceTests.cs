using NbdKit.Buffers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Buffers;

public sealed class InlinePaceTests
{
    private readonly FakeTimeProvider _time = new();

    [Test]
    public void Quick_calls_stay_where_they_are()
    {
        var pace = new InlinePace(_time);
        for (int i = 0; i < 1000; i++)
        {
            Assert.That(Elsewhere(pace, TimeSpan.FromMicroseconds(900)), Is.Zero);
        }
    }

    [Test]
    public void After_each_slow_call_twice_as_many_go_elsewhere_up_to_a_limit_and_a_quick_one_ends_it()
    {
        var pace = new InlinePace(_time);
        int[] expected = [0, 16, 32, 64, 128, 256, 256];
        foreach (int count in expected)
        {
            Assert.That(Elsewhere(pace, TimeSpan.FromMilliseconds(1)), Is.EqualTo(count));
        }
        Assert.That(Elsewhere(pace, TimeSpan.Zero), Is.EqualTo(256));
        Assert.That(Elsewhere(pace, TimeSpan.FromSeconds(1)), Is.Zero);
        Assert.That(Elsewhere(pace, TimeSpan.Zero), Is.EqualTo(16));
    }

    /// <summary>How many calls are to be made elsewhere before one here, which takes so long.</summary>
    private int Elsewhere(InlinePace pace, TimeSpan duration)
    {
        int elsewhere = 0;
        long start;
        while (!pace.TryBegin(out start))
        {
            elsewhere++;
        }
        _time.Advance(duration);
        pace.End(start);
        return elsewhere;
    }
}
