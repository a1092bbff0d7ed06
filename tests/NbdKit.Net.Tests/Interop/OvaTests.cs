using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Appliances made by GNU tar and QEMU.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class OvaTests
{
    private const int Seed = 20261128;

    /// <summary>An OVA with two disks: one compressed, and one that is no image.</summary>
    private static async Task<string> MakeAsync(ScratchDirectory folder)
    {
        Peer.Require("tar", "qemu-img");
        folder.Write("raw", ImageImages.Content(5 << 20, Seed));
        folder.Write("second.img", TestData.Random(100_000, Seed));
        folder.Write("box.ovf", "<Envelope/>"u8.ToArray());
        folder.Write("box.mf", "SHA256(box.ovf)= 0\n"u8.ToArray());
        await Peer.OutputAsync(
            "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", folder["raw"], folder["box-disk1.vmdk"]);
        await Peer.OutputAsync(
            "tar", "-C", folder.Path, "--format=ustar", "-cf", folder["box.ova"], "box.ovf", "box.mf", "box-disk1.vmdk", "second.img");
        return folder["box.ova"];
    }

    private static NbdBackend Chain(string ova, bool decode = false)
        => NbdBackend.Compose(new OvaPlugin { Chain = NbdBackend.Compose(new FilePlugin { Path = ova }), Decode = decode });

    [Test]
    public async Task Files_are_exports_and_the_first_disk_is_the_default()
    {
        Peer.Require("nbdinfo", "nbdcopy");
        using var folder = new ScratchDirectory();
        string ova = await MakeAsync(folder);
        string after = folder.Write("after", TestData.Random(100_000, Seed + 1));
        await using (InteropServer server = await InteropServer.StartAsync(Chain(ova)))
        {
            string list = await Peer.OutputAsync("nbdinfo", "--list", server.Uri);
            foreach (string name in new[] { "box.ovf", "box.mf", "box-disk1.vmdk", "second.img" })
            {
                Assert.That(list, Does.Contain($"export=\"{name}\":"));
                await Peer.OutputAsync("nbdcopy", server.UriOf(name), folder["copy"]);
                await SameFile.CheckAsync(folder["copy"], folder[name]);
            }
            await Peer.OutputAsync("nbdcopy", server.Uri, folder["copy"]);
            await SameFile.CheckAsync(folder["copy"], folder["box-disk1.vmdk"]);
            await Peer.OutputAsync("nbdcopy", "--flush", after, server.UriOf("second.img"));
        }
        await Peer.OutputAsync("tar", "-C", folder.Path, "-xf", ova, "second.img", "box-disk1.vmdk");
        await SameFile.CheckAsync(folder["second.img"], after);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vmdk", folder["raw"], folder["box-disk1.vmdk"]);
    }

    [Test]
    public async Task Disks_are_decoded_if_asked_for()
    {
        Peer.Require("nbdcopy");
        using var folder = new ScratchDirectory();
        string ova = await MakeAsync(folder);
        (int status, _, string error) = await ToolProcess.RunAsync("ova", ova, "decode=true", "--run", $"nbdcopy \"$uri\" {folder["copy"]}");
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(folder["copy"], folder["raw"]);
        await using NbdBackend chain = Chain(ova, decode: true);
        await using NextContext other = await chain.OpenAsync("second.img");
        Assert.That((other.Info.CanWrite, other.Info.Size), Is.EqualTo((true, 100_000L)));
        await using NextContext disk = await chain.OpenAsync("box-disk1.vmdk");
        await ImageImages.CheckAsync(disk, await File.ReadAllBytesAsync(folder["raw"]), Seed);
    }
}
