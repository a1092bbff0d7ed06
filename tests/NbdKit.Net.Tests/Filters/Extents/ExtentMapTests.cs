using NbdKit.Filters.Extents;

namespace NbdKit.Tests.Filters.Extents;

public class ExtentMapTests
{
    [Test]
    public void Scattered_changes_make_it_coarse_and_never_large_or_untrue()
    {
        const int Writes = 700_000;
        var map = new ExtentMap([]);
        for (int i = 0; i < Writes; i++)
        {
            map.Set(2L * i, (2L * i) + 1, ExtentStatus.Data);
        }
        long last = 2L * (Writes - 1);
        var extents = new ExtentList(0, last + 1, maximumCount: int.MaxValue);
        map.Query(0, last + 1, extents);
        Assert.That(extents.Count, Is.LessThan((1 << 20) + 10));
        Assert.That(extents.Covered, Is.EqualTo(last + 1));
        Assert.That(extents[^1].Status, Is.EqualTo(ExtentStatus.Data));
        map.Set(last, last + 1, ExtentStatus.Zero);
        extents = new ExtentList(last, last + 1);
        map.Query(last, last + 1, extents);
        Assert.That(extents[0].Status, Is.EqualTo(ExtentStatus.Data), "what is not known to be zero is data");
    }
}
