using NbdKit.Client;

namespace NbdKit.Tests.Client;

/// <summary>Which bytes of a read have arrived.</summary>
public sealed class ReadCoverageTests
{
    [Test]
    public void It_agrees_with_a_map_of_bytes([Range(1, 50)] int seed)
    {
        const int Size = 200;
        var random = new Random(seed);
        var coverage = new ReadCoverage();
        bool[] map = new bool[Size];
        for (int i = 0; i < 300; i++)
        {
            int from = random.Next(Size);
            int length = random.Next(1, Math.Min(20, Size - from) + 1);
            bool free = !map.AsSpan(from, length).Contains(true);

            Assert.That(coverage.TryAdd(from, length), Is.EqualTo(free), $"seed {seed}, {length} at {from}");

            if (free)
            {
                map.AsSpan(from, length).Fill(true);
            }
            Assert.That(coverage.IsComplete(Size), Is.EqualTo(!map.Contains(false)), $"seed {seed}");
        }
        coverage.Clear();
        Assert.That(coverage.IsComplete(Size), Is.False);
        Assert.That(coverage.IsComplete(0), Is.True);
    }

    [Test]
    public void What_is_in_order_is_one_piece()
    {
        var coverage = new ReadCoverage();
        for (int i = 0; i < 100_000; i++)
        {
            Assert.That(coverage.TryAdd(i, 1));
        }
        Assert.That(coverage.IsScattered, Is.False);
        Assert.That(coverage.IsComplete(100_000));
    }
}
