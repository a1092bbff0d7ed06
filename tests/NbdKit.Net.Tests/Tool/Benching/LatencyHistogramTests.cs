using NbdKit.Tool.Benching;

namespace NbdKit.Tests.Tool.Benching;

public sealed class LatencyHistogramTests
{
    [Test]
    public void Percentiles_are_those_of_the_sorted_values_up_to_a_bucket()
    {
        var random = new Random(9);
        var histogram = new LatencyHistogram();
        var second = new LatencyHistogram();
        long[] values = [.. Enumerable.Range(0, 5000).Select(_ => (long)Math.Pow(2, random.NextDouble() * 40) - 1)];
        for (int i = 0; i < values.Length; i++)
        {
            (i % 2 == 0 ? histogram : second).Add(values[i]);
        }
        histogram.AddAll(second);
        Array.Sort(values);
        Assert.That((histogram.Count, histogram.Maximum), Is.EqualTo((5000L, values[^1])));
        Assert.That(histogram.Mean, Is.EqualTo(values.Average()).Within(1e-6).Percent);
        foreach (double share in new[] { 0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0 })
        {
            long exact = values[Math.Max(0, (int)Math.Ceiling(share * values.Length) - 1)];
            Assert.That(histogram.Percentile(share), Is.InRange(exact, exact + (exact / 32) + 1), $"share {share}, seed 9");
        }
    }

    [Test]
    public void The_ends_of_the_range_have_their_place()
    {
        var histogram = new LatencyHistogram();
        Assert.That((histogram.Percentile(0.5), histogram.Mean), Is.EqualTo((0L, 0.0)));
        histogram.Add(0);
        histogram.Add(long.MaxValue);
        Assert.That(histogram.Percentile(0.5), Is.Zero);
        Assert.That(histogram.Percentile(1), Is.EqualTo(long.MaxValue));
    }
}
