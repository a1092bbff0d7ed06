namespace NbdKit.Tests;

public sealed class ExtentListTests
{
    [Test]
    public void Extents_come_in_order_and_without_gaps()
    {
        var list = new ExtentList(100, 200);
        list.Add(100, 10, ExtentStatus.Data);
        Assert.That(() => list.Add(111, 1, ExtentStatus.Data), Throws.ArgumentException.With.Message.Contains("contiguous"));
        Assert.That(() => list.Add(109, 1, ExtentStatus.Data), Throws.ArgumentException);
        list.Add(110, 5, ExtentStatus.Hole);
        Assert.That(list, Is.EqualTo(new[] { new Extent(100, 10, ExtentStatus.Data), new Extent(110, 5, ExtentStatus.Hole) }));
        Assert.That((list.Count, list[1].End, list.Covered, list.IsFull), Is.EqualTo((2, 115L, 115L, false)));
    }

    [Test]
    public void The_first_extent_may_begin_before_the_window_but_not_after_its_start()
    {
        var list = new ExtentList(100, 200);
        Assert.That(() => list.Add(101, 1, ExtentStatus.Data), Throws.ArgumentException.With.Message.Contains("after the start"));
        list.Add(0, 50, ExtentStatus.Hole);
        Assert.That((list.Count, list.Covered), Is.EqualTo((0, 100L)), "it lies altogether before the window");
        list.Add(50, 60, ExtentStatus.Zero);
        Assert.That(list, Is.EqualTo(new[] { new Extent(100, 10, ExtentStatus.Zero) }));
    }

    [Test]
    public void What_lies_after_the_window_is_clipped_or_dropped()
    {
        var list = new ExtentList(0, 10);
        list.Add(0, 100, ExtentStatus.Data);
        Assert.That((list.Covered, list.IsFull), Is.EqualTo((10L, true)));
        list.Add(100, 5, ExtentStatus.Hole);
        Assert.That(list, Is.EqualTo(new[] { new Extent(0, 10, ExtentStatus.Data) }));
        Assert.That(() => list.Add(0, 1, ExtentStatus.Data), Throws.ArgumentException, "contiguity counts for what is dropped too");
    }

    [Test]
    public void Neighbours_of_one_status_become_one()
    {
        var list = new ExtentList(0, 100, maximumCount: 2);
        list.Add(0, 1, ExtentStatus.Hole | ExtentStatus.Zero);
        list.Add(1, 1, ExtentStatus.Hole | ExtentStatus.Zero);
        list.Add(2, 1, ExtentStatus.Hole);
        list.Add(3, 4, ExtentStatus.Hole);
        Assert.That(list, Is.EqualTo(new[]
        {
            new Extent(0, 2, ExtentStatus.Hole | ExtentStatus.Zero), new Extent(2, 5, ExtentStatus.Hole),
        }));
    }

    [Test]
    public void Beyond_the_largest_count_extents_are_dropped_and_never_joined_across_the_gap()
    {
        var list = new ExtentList(0, 100, maximumCount: 1);
        list.Add(0, 10, ExtentStatus.Data);
        Assert.That(list.IsFull);
        list.Add(10, 10, ExtentStatus.Hole);
        list.Add(20, 10, ExtentStatus.Data);
        Assert.That(list, Is.EqualTo(new[] { new Extent(0, 10, ExtentStatus.Data) }));
        Assert.That(list.Covered, Is.EqualTo(10));
    }

    [Test]
    public void An_extent_of_no_bytes_is_ignored_but_must_be_in_its_place()
    {
        var list = new ExtentList(5, 10);
        list.Add(7, 0, ExtentStatus.Data);
        list.Add(5, 2, ExtentStatus.Data);
        list.Add(7, 0, ExtentStatus.Hole);
        Assert.That(() => list.Add(8, 0, ExtentStatus.Hole), Throws.ArgumentException);
        Assert.That(list.Count, Is.EqualTo(1));
    }

    [TestCase(-1, 1)]
    [TestCase(0, -1)]
    [TestCase(long.MaxValue, 1)]
    [TestCase(1, long.MaxValue)]
    public void A_range_that_is_none_is_refused(long offset, long length)
        => Assert.That(() => new ExtentList(0, 10).Add(offset, length, ExtentStatus.Data), Throws.ArgumentException);

    [Test]
    public void The_largest_window_can_be_covered()
    {
        var list = new ExtentList(0, long.MaxValue);
        list.Add(0, long.MaxValue - 1, ExtentStatus.Data);
        list.Add(long.MaxValue - 1, 1, ExtentStatus.Hole);
        Assert.That((list[1].End, list.IsFull), Is.EqualTo((long.MaxValue, true)));
    }

    [Test]
    public void A_window_that_is_none_is_refused()
    {
        Assert.That(() => new ExtentList(-1, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ExtentList(1, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ExtentList(2, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ExtentList(0, 1, ""), Throws.ArgumentException);
        Assert.That(() => new ExtentList(0, 1, "base:allocation", 0), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(new ExtentList(0, 1).MetaContext, Is.EqualTo("base:allocation"));
    }
}
