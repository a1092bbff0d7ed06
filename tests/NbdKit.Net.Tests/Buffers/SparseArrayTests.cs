using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public sealed class SparseArrayTests
{
    private const int Page = SparseArray.PageSize;
    private const long DirectorySpan = 4096L * Page;
    private const ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;

    // The begin of the disk, the borders of directories of each height, and its very end.
    private static readonly long[] Starts =
    [
        0,
        DirectorySpan - (3 * Page),
        (DirectorySpan * 4096) - (5 * Page),
        (1L << 51) - 100_000,
        long.MaxValue - 400_001,
    ];

    [TestCase(0, 1, 1)]
    [TestCase(1, 7, 400_000)]
    [TestCase(2, 12_345, 400_000)]
    [TestCase(3, DirectorySpan - Page + 1, 300_000)]
    [TestCase(4, DirectorySpan + 1, 300_000)]
    [TestCase(5, (DirectorySpan * 4096) + 1, 300_000)]
    public void A_random_history_equals_a_flat_array_at_the_end_of_a_disk(int seed, long before, int length)
        => Play(seed, before + length, before, length);

    [Test]
    public void A_random_history_equals_a_flat_array_anywhere_on_the_largest_disk([Range(0, 4)] int place)
        => Play(100 + place, long.MaxValue, Starts[place], 400_001);

    [Test]
    public void The_largest_empty_disk_is_one_hole_and_answers_at_once()
    {
        var array = new SparseArray(long.MaxValue);
        Assert.That(Extents(array, 0, long.MaxValue), Is.EqualTo(new[] { new Extent(0, long.MaxValue, Hole) }));
        array.Zero(0, long.MaxValue, keepPages: false, default);
        array.Zero(1, long.MaxValue - 1, keepPages: true, default);
        Assert.That(Extents(array, 5, long.MaxValue - 6), Is.EqualTo(new[] { new Extent(5, long.MaxValue - 6, Hole) }));
    }

    [Test]
    public void Single_bytes_far_apart_are_found_by_extents()
    {
        var array = new SparseArray(long.MaxValue);
        long[] places = [0, DirectorySpan, 1L << 45, (1L << 62) + 5, long.MaxValue - 1];
        foreach (long place in places)
        {
            array.Write(place, [0x11]);
        }
        IEnumerable<Extent> data = Extents(array, 0, long.MaxValue).Where(e => e.Status == ExtentStatus.Data);
        Assert.That(data.Select(e => e.Offset), Is.EqualTo(places.Select(place => place / Page * Page)));
        Assert.That(places.Select(place => ByteAt(array, place)), Is.All.EqualTo(0x11));

        array.Zero(1, long.MaxValue - 1, keepPages: false, default);
        Assert.That(
            Extents(array, 0, long.MaxValue),
            Is.EqualTo(new[] { new Extent(0, Page, ExtentStatus.Data), new Extent(Page, long.MaxValue - Page, Hole) }));
        Assert.That(ByteAt(array, 0), Is.EqualTo(0x11));
    }

    [Test]
    public void A_zero_that_keeps_pages_clears_them_and_makes_none()
    {
        var array = new SparseArray(10 * Page);
        array.Write(3 * Page, Filled(2 * Page, 0xee));
        array.Zero(Page, 9 * Page, keepPages: true, default);
        Assert.That(
            Extents(array, 0, 10 * Page),
            Is.EqualTo(new[]
            {
                new Extent(0, 3 * Page, Hole),
                new Extent(3 * Page, 2 * Page, ExtentStatus.Data),
                new Extent(5 * Page, 5 * Page, Hole),
            }));
        Assert.That(Bytes(array, 0, 10 * Page).AsSpan().ContainsAnyExcept((byte)0), Is.False);
    }

    [Test]
    public void A_short_last_page_is_given_up_when_a_zero_reaches_the_end()
    {
        var array = new SparseArray(Page + 10);
        array.Write(0, Filled(Page + 10, 0xee));
        array.Zero(Page, 9, keepPages: false, default);
        Assert.That(Extents(array, 0, Page + 10).Single().Status, Is.EqualTo(ExtentStatus.Data));
        array.Zero(Page, 10, keepPages: false, default);
        Assert.That(
            Extents(array, 0, Page + 10),
            Is.EqualTo(new[] { new Extent(0, Page, ExtentStatus.Data), new Extent(Page, 10, Hole) }));
    }

    [Test]
    public void Extents_begin_and_end_with_the_range_asked_for()
    {
        var array = new SparseArray(8 * Page);
        array.Write(2 * Page, [1]);
        Assert.That(
            Extents(array, Page + 1, (2 * Page) + 1),
            Is.EqualTo(new[]
            {
                new Extent(Page + 1, Page - 1, Hole),
                new Extent(2 * Page, Page, ExtentStatus.Data),
                new Extent(3 * Page, 2, Hole),
            }));
    }

    [Test]
    public void Extents_stop_after_the_first_when_one_is_wanted_and_the_first_is_complete()
    {
        var array = new SparseArray(4 * DirectorySpan);
        array.Write(3 * DirectorySpan, [1]);
        var extents = new ExtentList(0, array.Size);
        array.GetExtents(0, array.Size, onlyFirst: true, extents);
        Assert.That(extents[0], Is.EqualTo(new Extent(0, 3 * DirectorySpan, Hole)));
        Assert.That(extents.Covered, Is.LessThan(array.Size));
    }

    [Test]
    public void Extents_stop_when_the_list_is_full()
    {
        var array = new SparseArray(100 * Page);
        for (int i = 0; i < 100; i += 2)
        {
            array.Write(i * Page, [1]);
        }
        var extents = new ExtentList(0, array.Size, maximumCount: 7);
        array.GetExtents(0, array.Size, onlyFirst: false, extents);
        Assert.That(extents.Covered, Is.EqualTo(7 * Page));
    }

    [Test]
    public void One_extent_goes_on_over_all_regions()
    {
        const int Length = 9 << 20;
        var array = new SparseArray(1L << 30);
        array.Write(Page, Filled(Length, 1));
        var extents = new ExtentList(Page, 1L << 30, maximumCount: 1);
        array.GetExtents(Page, (1L << 30) - Page, onlyFirst: true, extents);
        Assert.That(extents[0], Is.EqualTo(new Extent(Page, Length, ExtentStatus.Data)));
    }

    [Test]
    public void A_zero_of_existing_pages_can_be_cancelled()
    {
        var array = new SparseArray(DirectorySpan * 2);
        array.Write(0, [1]);
        Assert.That(
            () => array.Zero(0, array.Size, keepPages: true, new CancellationToken(canceled: true)),
            Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public void Reads_and_writes_of_existing_pages_allocate_nothing()
    {
        var array = new SparseArray(long.MaxValue);
        byte[] buffer = Filled(3 * Page, 1);
        array.Write(Page / 2, buffer);
        array.Read(Page / 2, buffer);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 100; i++)
        {
            array.Write(Page / 2, buffer);
            array.Read(Page / 2, buffer);
            array.Read(1L << 60, buffer);
        }
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }

    // The model: the bytes of a window, and which of its pages exist.
    private static void Play(int seed, long size, long start, int length)
    {
        var random = new Random(seed);
        var array = new SparseArray(size);
        var model = new byte[length];
        long firstPage = start / Page;
        var pages = new bool[((start + length - 1) / Page) - firstPage + 1];
        for (int step = 0; step < 400; step++)
        {
            int at = random.Next(length);
            int count = 1 + random.Next(Math.Min(length - at, random.Next(2) == 0 ? 600 : length));
            if (random.Next(4) == 0)
            {
                // Ranges that begin and end at pages, and at the end of the disk, are the interesting ones.
                at = (int)Math.Max(0, ((start + at) / Page * Page) - start);
                count = random.Next(2) == 0 ? length - at : Math.Min(length - at, Page * (1 + random.Next(3)));
            }
            string what = $"seed {seed} step {step}: {count} bytes at {start} + {at}";
            long offset = start + at;
            switch (random.Next(6))
            {
                case 0 or 1:
                    byte[] data = new byte[count];
                    random.NextBytes(data);
                    array.Write(offset, data);
                    data.CopyTo(model, at);
                    int first = (int)((offset / Page) - firstPage);
                    int last = (int)(((offset + count - 1) / Page) - firstPage);
                    pages.AsSpan(first..(last + 1)).Fill(true);
                    break;
                case 2:
                    array.Zero(offset, count, keepPages: true, default);
                    model.AsSpan(at, count).Clear();
                    break;
                case 3:
                    array.Zero(offset, count, keepPages: false, default);
                    model.AsSpan(at, count).Clear();
                    GiveUp(pages, firstPage, offset, offset + count, size);
                    break;
                default:
                    Assert.That(
                        Bytes(array, offset, count).AsSpan().SequenceEqual(model.AsSpan(at, count)), Is.True, what);
                    break;
            }
            CheckExtents(array, pages, firstPage, offset, count, what);
        }
        Assert.That(Bytes(array, start, length).AsSpan().SequenceEqual(model), Is.True, $"seed {seed}, at the end");
        CheckExtents(array, pages, firstPage, start, length, $"seed {seed}, at the end");
    }

    private static void GiveUp(bool[] pages, long firstPage, long from, long to, long size)
    {
        for (int i = 0; i < pages.Length; i++)
        {
            long begin = (firstPage + i) * Page;
            long end = begin > size - Page ? size : begin + Page;
            pages[i] &= from > begin || to < end;
        }
    }

    private static void CheckExtents(
        SparseArray array, bool[] pages, long firstPage, long offset, int count, string what)
    {
        long at = offset;
        foreach (Extent extent in Extents(array, offset, count))
        {
            Assert.That(extent.Offset, Is.EqualTo(at), what);
            at += extent.Length;
            for (long page = extent.Offset / Page; page <= (at - 1) / Page; page++)
            {
                bool isData = extent.Status == ExtentStatus.Data;
                Assert.That(isData, Is.EqualTo(pages[page - firstPage]), $"{what}, page {page}");
            }
        }
        Assert.That(at, Is.EqualTo(offset + count), what);
    }

    private static ExtentList Extents(SparseArray array, long offset, long length)
    {
        var extents = new ExtentList(offset, offset + length);
        array.GetExtents(offset, length, onlyFirst: false, extents);
        return extents;
    }

    private static byte[] Bytes(SparseArray array, long offset, int count)
    {
        byte[] bytes = Filled(count, 0x5a);
        array.Read(offset, bytes);
        return bytes;
    }

    private static byte ByteAt(SparseArray array, long offset) => Bytes(array, offset, 1)[0];

    private static byte[] Filled(int count, byte value)
    {
        var bytes = new byte[count];
        bytes.AsSpan().Fill(value);
        return bytes;
    }
}
