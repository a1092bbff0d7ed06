using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class OvaPluginTests
{
    private static NbdBackend Chain(INbdPlugin archive, bool decode = false)
        => NbdBackend.Compose(new OvaPlugin { Chain = NbdBackend.Compose(archive), Decode = decode });

    private static TarImage Archive() => new TarImage().Add("box.ovf", new byte[100]).Add("disk.VMDK", TestData.Random(3000)).Add("more.img", new byte[512]);

    [Test]
    public async Task Requests_reach_the_file_in_the_archive()
    {
        var plugin = new ModelPlugin(Archive().End().Bytes);
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.ExportName, Is.EqualTo("disk.VMDK"));
        Assert.That(await TestData.ReadAsync(disk, 0, 3000), Is.EqualTo(TestData.Random(3000)));
        plugin.TakeCalls();
        await disk.WriteAsync(new byte[10], 20, RequestFlags.Fua, default);
        await disk.TrimAsync(1, 2, RequestFlags.None, default);
        await disk.ZeroAsync(3, 4, RequestFlags.MayTrim, default);
        await disk.CacheAsync(5, 6, default);
        await disk.FlushAsync(default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "write 1556+10 Fua", "trim 1537+2", "zero 1539+4 MayTrim", "cache 1541+6", "flush",
        }));
        ExtentList extents = await disk.ExtentsFullAsync(0, 3000, ExtentList.BaseAllocation, default);
        Assert.That((extents[0].Offset, extents[^1].End), Is.EqualTo((0L, 3000L)));
    }

    [Test]
    public async Task What_the_archive_does_not_have_is_not_an_export()
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Archive().End().Bytes));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("other")).Message, Does.Contain("no file of this name"));
        await using NbdBackend damaged = Chain(new ModelPlugin(TestData.Random(5000)));
        Assert.That(TestData.Failure(async () => await damaged.OpenAsync("other")).Message, Does.Contain("not a tar archive"));
        await using NbdBackend diskless = Chain(new ModelPlugin(new TarImage().Add("box.ovf", new byte[5]).End().Bytes));
        Assert.That(async () => await diskless.OpenAsync(), Throws.InstanceOf<NbdException>());
    }

    [Test]
    public async Task Exports_are_listed_in_their_order_without_names_that_cannot_be()
    {
        byte[] archive = Archive().AddPax("path=" + new string('x', 5000)).Add("x", new byte[1]).AddPax("path=a\0b").Add("x", new byte[1]).End().Bytes;
        await using NbdBackend chain = Chain(new ModelPlugin(archive));
        await chain.StartAsync();
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, readOnly: true, null, default);
        Assert.That(exports.Select(export => export.Name), Is.EqualTo(new[] { "box.ovf", "disk.VMDK", "more.img" }));
    }

    [Test]
    public async Task An_image_that_cannot_be_decoded_fails_its_open_alone()
    {
        byte[] archive = Archive().Add("bad.vmdk", [.. "KDMV"u8, .. new byte[1000]]).End().Bytes;
        await using NbdBackend chain = Chain(new ModelPlugin(archive), decode: true);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("bad.vmdk")).Message, Does.Contain("VMDK"));
        await using NextContext disk = await chain.OpenAsync("disk.VMDK");
        Assert.That(await TestData.ReadAsync(disk, 0, 3000), Is.EqualTo(TestData.Random(3000)));
    }
}
