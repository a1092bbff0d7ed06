using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class MapFilterTests
{
    private readonly byte[] _content = TestData.Random(8192, 5);

    private static MapFilter Create(params string[] ranges)
        => (MapFilter)MapFilter.Entry.Create(new NbdParameters("map", ranges.Select(r => KeyValuePair.Create("map", r))));

    [Test]
    public void Ranges_are_written_as_nbdkit_writes_them()
        => Assert.That(Create("0-511:512", "1K-2047:0").Ranges, Is.EqualTo(new MapRange[] { new(0, 511, 512), new(1024, 2047, 0) }));

    [TestCase("0-511"), TestCase("0:511-512"), TestCase("512-0:1"), TestCase("a-b:c"), TestCase("0-1:8E"), TestCase("1-2:3:4")]
    public void Other_ranges_are_refused_by_name(string range)
        => Assert.That(() => Create(range), Throws.ArgumentException.With.Message.Contains($"map={range}"));

    [Test]
    public async Task What_goes_beyond_the_end_below_fails_and_is_promised_to_nobody()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(_content), new MapFilter { Ranges = [new(0, 1023, 8000)], Size = 10_000 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] read = new byte[192];
        await disk.ReadAsync(read, 0, default);
        Assert.That(read, Is.EqualTo(_content[8000..]));
        foreach ((long offset, int length) in new[] { (0L, 193), (192L, 1), (8000L, 193), (9000L, 1000), (100L, 2000) })
        {
            Assert.That(
                Assert.ThrowsAsync<NbdException>(() => disk.ReadAsync(new byte[length], offset, default).AsTask())!.Error,
                Is.EqualTo(NbdError.IoError), $"{offset}");
        }
        ExtentList extents = await disk.ExtentsFullAsync(0, 10_000, ExtentList.BaseAllocation, default);
        Assert.That((extents.Covered, extents.All(e => e.Status == ExtentStatus.Data)), Is.EqualTo((10_000, true)));
    }

    [Test]
    public async Task Zero_and_trim_reach_every_range_that_they_touch()
    {
        var plugin = new ModelPlugin(_content);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MapFilter { Ranges = [new(1000, 1999, 5000)] });
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.ZeroAsync(500, 2000, RequestFlags.None, default);
        Assert.That(plugin.Data[500..1000].Concat(plugin.Data[5000..6000]).Concat(plugin.Data[2000..2500]), Is.All.Zero);
        Assert.That(plugin.Data[1000..2000], Is.EqualTo(_content[1000..2000]));
        await disk.TrimAsync(999, 2, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Has.Length.EqualTo(5));
    }

    [Test]
    public async Task A_fast_zero_that_would_take_several_requests_is_refused_and_has_no_effect()
    {
        var plugin = new ModelPlugin(_content);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MapFilter { Ranges = [new(1000, 1999, 5000)] });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => disk.ZeroAsync(900, 200, RequestFlags.FastZero, default).AsTask())!.Error,
            Is.EqualTo(NbdError.NotSupported));
        Assert.That(plugin.Data, Is.EqualTo(_content));
        await disk.ZeroAsync(1000, 200, RequestFlags.FastZero, default);
        Assert.That(plugin.Data[5000..5200], Is.All.Zero);
    }

    [Test]
    public async Task A_size_that_cuts_a_block_of_the_layer_below_is_refused()
    {
        var plugin = new ModelPlugin(_content, ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MapFilter { Size = 1000 });
        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync().AsTask())!.Error, Is.EqualTo(NbdError.InvalidArgument));
    }

    [TestCase(100, 611, 1024), TestCase(0, 600, 1024), TestCase(0, 511, 100)]
    public async Task Ranges_must_be_made_of_blocks_of_the_layer_below(long start, long end, long destination)
    {
        var plugin = new ModelPlugin(_content, ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MapFilter { Ranges = [new(start, end, destination)] });
        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync().AsTask())!.Error, Is.EqualTo(NbdError.InvalidArgument));
    }
}
