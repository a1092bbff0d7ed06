using NbdKit.Copy;

namespace NbdKit.Tests.Copy;

public sealed class RangeSetTests
{
    [Test]
    public void It_agrees_with_a_plain_model()
    {
        var random = new Random(6);
        for (int round = 0; round < 40; round++)
        {
            var set = new RangeSet();
            bool[] model = new bool[200];
            for (int i = 0; i < 30; i++)
            {
                int offset = random.Next(199);
                int length = 1 + random.Next(Math.Min(15, model.Length - offset));
                set.Add(offset, length);
                model.AsSpan(offset, length).Fill(true);
                Check(set, model, $"round {round}, step {i}, seed 6");
            }
        }
    }

    [Test]
    public void Ranges_that_touch_become_one()
    {
        var set = new RangeSet();
        set.Add(10, 10);
        set.Add(30, 10);
        set.Add(20, 10);
        Assert.That(set.Ranges, Is.EqualTo(new[] { new CopyRange(10, 30) }));
    }

    private static void Check(RangeSet set, bool[] model, string where)
    {
        Assert.That(set.Bytes, Is.EqualTo(model.Count(b => b)), where);
        for (int at = 0; at < model.Length; at++)
        {
            bool inside = set.Find(at, out long boundary);
            Assert.That(inside, Is.EqualTo(model[at]), where);
            int change = Array.FindIndex(model, at, b => b != inside);
            Assert.That(boundary, Is.EqualTo(change >= 0 ? change : inside ? model.Length : long.MaxValue), where);
        }
    }
}
