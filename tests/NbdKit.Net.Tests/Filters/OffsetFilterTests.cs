using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class OffsetFilterTests
{
    private static readonly byte[] Content = TestData.Random(10_000);

    private static NbdBackend Chain(ModelPlugin plugin, long offset, long? range = null)
        => NbdBackend.Compose(plugin, new OffsetFilter { Offset = offset, Range = range });

    [Test]
    public async Task The_range_begins_at_the_offset_and_ends_with_it()
    {
        var plugin = new ModelPlugin(Content);
        await using NbdBackend chain = Chain(plugin, 100, 300);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info, Is.EqualTo(plugin.Info with { Size = 300 }));
        Assert.That(await TestData.ReadAsync(disk, 0, 300), Is.EqualTo(Content[100..400]));
        Assert.That(await TestData.ReadAsync(disk, 299, 1), Is.EqualTo(Content[399..400]));
    }

    [Test]
    public async Task Without_a_range_everything_that_follows_is_served()
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Content), 9_999);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1));
        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(Content[^1..]));
    }

    [TestCase(10_000, null)]
    [TestCase(10_000, 0L)]
    [TestCase(0, 0L)]
    public async Task An_empty_range_is_an_export_of_no_bytes(long offset, long? range)
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Content), offset, range);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
    }

    [Test]
    public async Task Every_request_is_moved_with_its_flags()
    {
        var plugin = new ModelPlugin(Content);
        await using NbdBackend chain = Chain(plugin, 1000, 2000);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 5, RequestFlags.Fua, default);
        await disk.TrimAsync(10, 20, RequestFlags.Fua, default);
        await disk.ZeroAsync(30, 40, RequestFlags.MayTrim | RequestFlags.FastZero, default);
        await disk.CacheAsync(50, 60, default);
        await disk.FlushAsync(default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "write 1005+3 Fua", "trim 1010+20 Fua", "zero 1030+40 MayTrim, FastZero", "cache 1050+60", "flush",
        }));
        Assert.That(plugin.Data[1005..1008], Is.EqualTo(new byte[] { 1, 2, 3 }));
    }

    [Test]
    public async Task Extents_are_moved_and_end_with_the_range()
    {
        byte[] content = new byte[8192];
        content.AsSpan(2048, 1024).Fill(1);
        await using NbdBackend chain = Chain(new ModelPlugin(content), 1024, 3000);
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, 3000, ExtentList.BaseAllocation, default);
        Assert.That(extents[0].Offset, Is.Zero);
        Assert.That(extents[^1].End, Is.EqualTo(3000));
        Assert.That(
            extents.Where(e => e.Status == ExtentStatus.Data).Select(e => (e.Offset, e.Length)),
            Is.EqualTo(new[] { (1024L, 1024L) }));
    }

    [Test]
    public async Task What_lies_beyond_the_range_never_shows_in_its_extents()
    {
        await using NbdBackend chain = Chain(new ModelPlugin(new byte[8192]), 512, 512);
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(100, long.MaxValue);
        await disk.ExtentsAsync(100, 1, RequestFlags.RequestOne, extents, default);
        Assert.That(extents.Covered, Is.LessThanOrEqualTo(512));
    }

    [TestCase(10_001, null)]
    [TestCase(10_000, 1L)]
    [TestCase(9_000, 1_001L)]
    [TestCase(long.MaxValue, null)]
    [TestCase(1, long.MaxValue)]
    [TestCase(long.MaxValue, long.MaxValue)]
    public async Task A_range_outside_the_layer_below_fails_the_open_with_EINVAL(long offset, long? range)
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Content), offset, range);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain("10000 bytes"));
    }

    [Test]
    public async Task A_range_that_begins_inside_a_block_fails_the_open()
    {
        var info = ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096) };
        await using NbdBackend chain = Chain(new ModelPlugin(new byte[8192], info), 100);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain("blocksize filter"));
    }

    [Test]
    public async Task Offsets_work_up_to_the_end_of_the_largest_disk()
    {
        const long Base = long.MaxValue - 5000;
        var plugin = new ModelPlugin(Content[..5000]) { Base = Base };
        await using NbdBackend chain = Chain(plugin, Base);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(5000));
        Assert.That(await TestData.ReadAsync(disk, 4999, 1), Is.EqualTo(Content[4999..5000]));
        await disk.WriteAsync(new byte[] { 42 }, 4999, RequestFlags.None, default);
        Assert.That(plugin.Data[4999], Is.EqualTo(42));
        ExtentList extents = await disk.ExtentsFullAsync(0, 5000, ExtentList.BaseAllocation, default);
        Assert.That(extents[^1].End, Is.EqualTo(5000));
    }

    [Test]
    public void Negative_settings_are_refused_where_they_are_set()
    {
        Assert.That(() => new OffsetFilter { Offset = -1 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new OffsetFilter { Range = -1 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void The_entry_reads_its_parameters()
    {
        var filter = (OffsetFilter)OffsetFilter.Entry.Create(new NbdParameters("offset", [new("offset", "1M"), new("range", "4s")]));
        Assert.That((filter.Offset, filter.Range), Is.EqualTo((1048576L, (long?)2048)));
        var plain = (OffsetFilter)OffsetFilter.Entry.Create(new NbdParameters("offset", []));
        Assert.That((plain.Offset, plain.Range), Is.EqualTo((0L, (long?)null)));
        Assert.That(
            () => OffsetFilter.Entry.Create(new NbdParameters("offset", [new("offset", "-1")])),
            Throws.ArgumentException.With.Message.Contains("offset=-1"));
    }
}
