using Microsoft.Win32.SafeHandles;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

// Trims, zeroes and extents, on each file system at hand.
[Platform("Linux")]
[TestFixtureSource(typeof(ScratchDirectory), nameof(ScratchDirectory.Parents))]
public sealed class FilePluginSpaceTests(string parent)
{
    private const int Size = 1 << 20;
    private const ExtentStatus HoleZero = ExtentStatus.Hole | ExtentStatus.Zero;

    private ScratchDirectory _scratch = null!;
    private string _path = null!;
    private byte[] _content = null!;

    [SetUp]
    public void SetUp()
    {
        _scratch = new ScratchDirectory(parent);
        _content = FilePluginTests.Content(Size, seed: 1);
        _path = _scratch.Write("disk", _content);
    }

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [Test]
    public async Task A_trim_gives_the_space_back([Values(RequestFlags.None, RequestFlags.Fua)] RequestFlags flags)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _path });
        await using NextContext disk = await chain.OpenAsync();
        await disk.FlushAsync(default);
        long before = Allocated();
        await disk.TrimAsync(65536, 131072, flags, default);
        Assert.That(before - Allocated(), Is.EqualTo(131072));
        ClearExpected(65536, 131072);
        await FilePluginTests.ExpectAsync(disk, 0, _content);
    }

    [Test]
    public async Task A_zero_that_may_trim_gives_the_space_back(
        [Values(RequestFlags.None, RequestFlags.FastZero, RequestFlags.Fua)] RequestFlags flags)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _path });
        await using NextContext disk = await chain.OpenAsync();
        await disk.FlushAsync(default);
        long before = Allocated();
        await disk.ZeroAsync(65536, 131072, RequestFlags.MayTrim | flags, default);
        Assert.That(before - Allocated(), Is.EqualTo(131072));
        ClearExpected(65536, 131072);
        await FilePluginTests.ExpectAsync(disk, 0, _content);
    }

    [Test]
    public async Task A_zero_that_may_not_trim_keeps_the_space(
        [Values(RequestFlags.None, RequestFlags.FastZero, RequestFlags.Fua)] RequestFlags flags)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _path });
        await using NextContext disk = await chain.OpenAsync();
        await disk.FlushAsync(default);
        long before = Allocated();
        await disk.ZeroAsync(65536, 131072, flags, default);
        await disk.FlushAsync(default);
        Assert.That(Allocated(), Is.GreaterThanOrEqualTo(before));
        ClearExpected(65536, 131072);
        await FilePluginTests.ExpectAsync(disk, 0, _content);
    }

    [Test]
    public async Task A_zero_that_may_not_trim_allocates_a_hole()
    {
        string path = _scratch.WriteHole("hole", Size);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 262144, RequestFlags.None, default);
        await disk.FlushAsync(default);
        Assert.That(ScratchDirectory.AllocatedBytes(path), Is.GreaterThanOrEqualTo(262144));
    }

    [TestCase(1, 1)]
    [TestCase(4095, 2)]
    [TestCase(5000, 100_001)]
    [TestCase(Size - 1, 1)]
    [TestCase(0, Size)]
    public async Task Zeroes_and_trims_of_odd_ranges_touch_nothing_else(int offset, int length)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _path });
        await using NextContext disk = await chain.OpenAsync();
        foreach (RequestFlags flags in new[] { RequestFlags.None, RequestFlags.MayTrim })
        {
            await disk.WriteAsync(_content, 0, RequestFlags.None, default);
            await disk.ZeroAsync(offset, length, flags, default);
            byte[] expected = [.. _content];
            expected.AsSpan(offset, length).Clear();
            await FilePluginTests.ExpectAsync(disk, 0, expected, $"zero, {flags}");
        }
        await disk.WriteAsync(_content, 0, RequestFlags.None, default);
        await disk.TrimAsync(offset, length, RequestFlags.None, default);
        byte[] rest = await FilePluginTests.ReadAsync(disk, 0, Size);
        Assert.That(rest.AsSpan(0, offset).SequenceEqual(_content.AsSpan(0, offset)), "before the trim");
        Assert.That(rest.AsSpan(offset + length).SequenceEqual(_content.AsSpan(offset + length)), "after the trim");
        Assert.That(new FileInfo(_path).Length, Is.EqualTo(Size));
    }

    [Test]
    public async Task Extents_tell_holes_from_data()
    {
        string path = _scratch.WriteHole("sparse", Size);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanExtents, Is.True);
        await disk.WriteAsync(FilePluginTests.Content(65536, 1), 131072, RequestFlags.None, default);
        await disk.WriteAsync(FilePluginTests.Content(65536, 2), Size - 65536, RequestFlags.None, default);
        ExtentList extents = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new Extent[]
        {
            new(0, 131072, HoleZero),
            new(131072, 65536, ExtentStatus.Data),
            new(196608, Size - 65536 - 196608, HoleZero),
            new(Size - 65536, 65536, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task Extents_stop_at_the_first_one_if_only_one_is_wanted_and_when_the_list_is_full()
    {
        string path = _scratch.WriteHole("sparse", Size);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(FilePluginTests.Content(65536, 1), 131072, RequestFlags.None, default);
        await disk.WriteAsync(FilePluginTests.Content(65536, 1), 393216, RequestFlags.None, default);

        var one = new ExtentList(1000, Size);
        await disk.ExtentsAsync(1000, Size - 1000, RequestFlags.RequestOne, one, default);
        Assert.That(one, Is.EqualTo(new[] { new Extent(1000, 130072, HoleZero) }));

        var full = new ExtentList(140000, Size, maximumCount: 2);
        await disk.ExtentsAsync(140000, Size - 140000, RequestFlags.None, full, default);
        Assert.That(full, Is.EqualTo(new[]
        {
            new Extent(140000, 56608, ExtentStatus.Data), new Extent(196608, 196608, HoleZero),
        }));

        // The last extent may go beyond what was asked for, but no further one is looked for.
        var small = new ExtentList(140000, Size);
        await disk.ExtentsAsync(140000, 10, RequestFlags.None, small, default);
        Assert.That(small, Is.EqualTo(new[] { new Extent(140000, 56608, ExtentStatus.Data) }));
    }

    [Test]
    public async Task The_end_that_a_file_has_lost_is_not_called_a_hole()
    {
        string path = _scratch.WriteHole("sparse", Size);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        using (SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            RandomAccess.SetLength(file, 65536);
        }
        ExtentList extents = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 65536, HoleZero), new Extent(65536, Size - 65536, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task Ranges_are_64_bits_wide()
    {
        const long Huge = (8L << 40) - 511;
        string path = _scratch.WriteHole("huge", Huge);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        byte[] data = FilePluginTests.Content(600, 3);
        await disk.WriteAsync(data, Huge - 600, RequestFlags.None, default);
        Assert.That(await FilePluginTests.ReadAsync(disk, Huge - 600, 600), Is.EqualTo(data));
        await disk.TrimAsync(0, Huge - 1, RequestFlags.None, default);
        Assert.That(await FilePluginTests.ReadAsync(disk, Huge - 1, 1), Is.EqualTo(data[^1..]));
        await disk.ZeroAsync(0, Huge, RequestFlags.MayTrim, default);
        ExtentList extents = await disk.ExtentsFullAsync(0, Huge, ExtentList.BaseAllocation, default);
        Assert.That(extents, Has.Count.LessThanOrEqualTo(2));
        Assert.That(extents[0], Is.EqualTo(new Extent(0, extents[0].Length, HoleZero)));
        Assert.That(extents[0].Length, Is.GreaterThanOrEqualTo(Huge - 4096));
        Assert.That(await FilePluginTests.ReadAsync(disk, Huge - 600, 600), Is.EqualTo(new byte[600]));
    }

    [Test]
    public async Task Parallel_extents_disturb_neither_each_other_nor_the_reads()
    {
        string path = _scratch.WriteHole("sparse", Size);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        byte[] block = FilePluginTests.Content(65536, 1);
        for (long offset = 0; offset < Size; offset += 131072)
        {
            await disk.WriteAsync(block, offset, RequestFlags.None, default);
        }
        await Parallel.ForAsync(0, 64, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (i, token) =>
        {
            long offset = i % 8 * 131072L;
            var extents = new ExtentList(offset, Size);
            await disk.ExtentsAsync(offset, 131072, RequestFlags.None, extents, token);
            Assert.That(extents, Is.EqualTo(new[]
            {
                new Extent(offset, 65536, ExtentStatus.Data), new Extent(offset + 65536, 65536, HoleZero),
            }));
            await FilePluginTests.ExpectAsync(disk, offset, block);
        });
    }

    private long Allocated() => ScratchDirectory.AllocatedBytes(_path);

    private void ClearExpected(int offset, int length) => _content.AsSpan(offset, length).Clear();
}
