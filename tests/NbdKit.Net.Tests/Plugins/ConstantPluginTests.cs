using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

/// <summary>The plugins that read as the same byte everywhere: full, zero and ones.</summary>
public sealed class ConstantPluginTests
{
    [Test]
    public async Task A_full_disk_reads_as_zeroes_and_has_no_space()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FullPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = [1, 2, 3];
        await disk.ReadAsync(bytes, long.MaxValue - 3, default);
        Assert.That(bytes, Is.EqualTo(new byte[3]));
        await Fails(NbdError.NoSpace, () => disk.WriteAsync(new byte[3], 5, RequestFlags.None, default));
        await Fails(NbdError.NoSpace, () => disk.TrimAsync(5, long.MaxValue - 5, RequestFlags.None, default));
        await Fails(NbdError.NoSpace, () => disk.ZeroAsync(5, 7, RequestFlags.None, default));
        await Fails(NbdError.NotSupported, () => disk.ZeroAsync(5, 7, RequestFlags.FastZero, default));
        ExtentList extents = await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, long.MaxValue, ExtentStatus.Hole | ExtentStatus.Zero) }));
        Assert.That((disk.Info.CanMultiConn, disk.Info.CanFastZero), Is.EqualTo((true, true)));
    }

    [Test]
    public async Task The_zero_plugin_serves_no_bytes()
    {
        await using NbdBackend chain = NbdBackend.Compose(new ZeroPlugin());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.Size, disk.Info.CanWrite, disk.Info.CanMultiConn), Is.EqualTo((0, false, true)));
        Assert.That(async () => await disk.ReadAsync(new byte[1], 0, default), Throws.Exception);
    }

    [TestCase(null, 0xff)]
    [TestCase("0x5a", 0x5a)]
    [TestCase("0", 0)]
    public async Task The_ones_plugin_reads_as_its_byte_and_changes_nothing(string? text, int due)
    {
        KeyValuePair<string, string>[] size = [new("", "1G")];
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "ones", [], text is null ? size : [.. size, new("byte", text)]);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1 << 30));
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 100, RequestFlags.Fua, default);
        await disk.ZeroAsync(90, 5, RequestFlags.FastZero, default);
        await disk.TrimAsync(95, 5, RequestFlags.None, default);
        await disk.FlushAsync(default);
        byte[] bytes = new byte[64];
        await disk.ReadAsync(bytes, 64, default);
        Assert.That(bytes, Is.All.EqualTo((byte)due));
        ExtentList extents = await disk.ExtentsFullAsync(0, 1 << 30, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, 1 << 30, ExtentStatus.Data) }));
    }

    [TestCase("full", "", "", "size=")]
    [TestCase("ones", "", "", "size=")]
    [TestCase("ones", "byte", "256", "byte=256")]
    [TestCase("ones", "byte", "-1", "byte=-1")]
    [TestCase("zero", "size", "1", "size")]
    public void Mistakes_are_named(string plugin, string key, string value, string message)
        => Assert.That(
            () => new NbdCatalogue().Compose(plugin, [], key.Length == 0 ? [] : [new(key, value), .. Size(plugin)]),
            Throws.ArgumentException.With.Message.Contains(message));

    [Test]
    public void A_negative_size_is_refused_where_it_is_set()
    {
        Assert.That(() => new FullPlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new OnesPlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static KeyValuePair<string, string>[] Size(string plugin) => plugin == "zero" ? [] : [new("size", "1")];

    private static async Task Fails(NbdError error, Func<ValueTask> request)
    {
        try
        {
            await request();
        }
        catch (NbdException e)
        {
            Assert.That(e.Error, Is.EqualTo(error));
            return;
        }
        Assert.Fail($"it did not fail with {error}");
    }
}
