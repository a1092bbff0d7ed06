using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class NullPluginTests
{
    [Test]
    public async Task It_forgets_what_is_written_and_reads_zeroes()
    {
        await using NbdBackend chain = NbdBackend.Compose(new NullPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = [1, 2, 3];
        await disk.WriteAsync(bytes, long.MaxValue - 3, RequestFlags.Fua, default);
        await disk.FlushAsync(default);
        await disk.TrimAsync(0, long.MaxValue, RequestFlags.Fua, default);
        await disk.ZeroAsync(0, long.MaxValue, RequestFlags.Fua | RequestFlags.FastZero, default);
        await disk.CacheAsync(0, long.MaxValue, default);
        await disk.ReadAsync(bytes, long.MaxValue - 3, default);
        Assert.That(bytes, Is.All.Zero);
    }

    [Test]
    public async Task It_does_everything_natively()
    {
        await using NbdBackend chain = NbdBackend.Compose(new NullPlugin { Size = 512 });
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That(
            (info.CanZero, info.CanFua, info.CanCache), Is.EqualTo((Support.Native, Support.Native, Support.Native)));
        Assert.That(
            new[] { info.CanWrite, info.CanFlush, info.CanTrim, info.CanFastZero, info.CanMultiConn, info.CanExtents },
            Is.All.True);
    }

    [Test]
    public async Task All_of_it_is_a_hole()
    {
        await using NbdBackend chain = NbdBackend.Compose(new NullPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1 }, 7, RequestFlags.None, default);
        var extents = new ExtentList(5, long.MaxValue);
        await disk.ExtentsAsync(5, long.MaxValue - 5, RequestFlags.None, extents, default);
        Assert.That(
            extents, Is.EqualTo(new[] { new Extent(5, long.MaxValue - 5, ExtentStatus.Hole | ExtentStatus.Zero) }));
    }

    [TestCase(new string[0], 0)]
    [TestCase(new[] { "size", "10M" }, 10 << 20)]
    [TestCase(new[] { "", "4k" }, 4096)]
    public async Task The_catalogue_makes_it(string[] parameter, long size)
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(NullPlugin.Entry);
        await using NbdBackend chain = catalogue.Compose(
            "null", [], parameter.Chunk(2).Select(pair => KeyValuePair.Create(pair[0], pair[1])));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(size));
    }

    [Test]
    public void A_negative_size_is_refused_where_it_is_set()
        => Assert.That(() => new NullPlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
}
