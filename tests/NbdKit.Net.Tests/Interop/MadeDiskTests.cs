using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>Disks that programs of the system make, as other programs of the system see them.</summary>
[Platform("Linux")]
[Parallelizable(ParallelScope.All)]
public sealed class MadeDiskTests
{
    private static async Task CheckAsync(InteropServer server, string export, string image, string label)
    {
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", server.UriOf(export), image);
        await Peer.OutputAsync("e2fsck", "-fn", image);
        Assert.That(await Peer.OutputAsync("debugfs", "-R", "stats -h", image), Does.Contain($"Filesystem volume name:   {label}\n"));
    }

    [Test]
    public async Task A_temporary_disk_is_a_file_system([Values("ext2", "ext4")] string type)
    {
        Peer.Require("mke2fs", "e2fsck", "debugfs", "qemu-img");
        using var folder = new ScratchDirectory();
        await using InteropServer server = await InteropServer.StartAsync(
            new TmpdiskPlugin { Size = 16 << 20, Type = type, Label = "a 'label'" });
        await CheckAsync(server, "", folder["image"], "a 'label'");
    }

    [Test]
    public async Task Disks_on_demand_are_file_systems_that_keep_what_is_written_and_nbdkit_respects_the_lock()
    {
        Peer.Require("mke2fs", "e2fsck", "debugfs", "qemu-img", "nbdkit", "nbdinfo", "nbdcopy");
        using var folder = new ScratchDirectory();
        using var disks = new ScratchDirectory();
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new OndemandPlugin { Directory = disks.Path, Size = 8 << 20, Label = "x" }), lenient: true);
        await CheckAsync(server, "one", folder["image"], "x");
        await Peer.OutputAsync("debugfs", "-w", "-R", $"write {folder.Write("file", TestData.Random(5000, 1))} file", folder["image"]);
        await Peer.OutputAsync("nbdcopy", "--flush", folder["image"], server.UriOf("one"));
        await SameFile.CheckAsync(disks["one"], folder["image"], "written through the server");
        Assert.That(await Peer.OutputAsync("nbdinfo", "--list", server.Uri), Does.Contain("export=\"one\""));

        await using BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(folder, "ondemand", $"dir={disks.Path}", "8M");
        string theirs = $"nbd+unix:///one?socket={nbdkit.SocketPath}";
        await Peer.OutputAsync("nbdinfo", "--size", theirs);
        await using (await NbdClient.ConnectAsync(server.UriOf("one")))
        {
            Assert.That((await Peer.RunAsync("nbdinfo", "--size", theirs)).Status, Is.Not.Zero);
        }
        await using (await NbdClient.ConnectAsync(theirs))
        {
            Assert.That((await Peer.RunAsync("nbdinfo", "--size", server.UriOf("one"))).Status, Is.Not.Zero);
        }
    }

    [TestCase("ext2", "", 0)]
    [TestCase("ext3", "+20M", 20 << 20)]
    [TestCase("ext4", "64M", 40 << 20)]
    public async Task A_directory_is_a_file_system_in_a_partition(string type, string size, int free)
    {
        Peer.Require("mke2fs", "e2fsck", "debugfs", "qemu-img", "nbdkit");
        using var tree = new ScratchDirectory();
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(tree["sub/deeper"]);
        tree.Write("sub/deeper/große Datei", TestData.Random(3_000_000, 2));
        tree.Write("empty", []);
        File.CreateSymbolicLink(tree["link"], "sub/deeper");
        KeyValuePair<string, string>[] sized = size.Length > 0 ? [new("size", size)] : [];
        NbdBackend chain = new NbdCatalogue().Compose("linuxdisk", [], [new("", tree.Path), new("type", type), new("label", "ROOT"), .. sized]);
        await using InteropServer server = await InteropServer.StartAsync(chain);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", server.Uri, folder["disk"]);
        // nbdkit believes the table, and so does this library's own filter, which checks its sums.
        await Peer.OutputAsync(
            "nbdkit", "--exit-with-parent", "-U", "-", "--filter=partition", "file", folder["disk"], "partition=1",
            "--run", $"qemu-img convert -f raw -O raw \"$uri\" {folder["partition"]}");
        await using NbdBackend own = NbdBackend.Compose(new FilePlugin { Path = folder["disk"] }, new PartitionFilter { Partition = 1 });
        NextContext partition = await own.OpenAsync(readOnly: true);
        Assert.That(new FileInfo(folder["partition"]).Length, Is.EqualTo(partition.Info.Size));
        await partition.DisposeAsync();

        await Peer.OutputAsync("e2fsck", "-fn", folder["partition"]);
        string stats = await Peer.OutputAsync("debugfs", "-R", "stats -h", folder["partition"]);
        Assert.That(stats, Does.Contain("ROOT").And.Contain(type == "ext2" ? "filetype" : "has_journal"));
        long blockSize = Value(stats, "Block size:");
        Assert.That(Value(stats, "Free blocks:") * blockSize, Is.GreaterThanOrEqualTo(free));
        Directory.CreateDirectory(folder["out"]);
        await Peer.OutputAsync("debugfs", "-R", $"rdump / {folder["out"]}", folder["partition"]);
        Directory.Delete(folder["out/lost+found"]);
        await Peer.OutputAsync("diff", "-r", "--no-dereference", tree.Path, folder["out"]);
    }

    [Test]
    public void A_directory_that_does_not_fit_fails()
    {
        Peer.Require("mke2fs");
        using var tree = new ScratchDirectory();
        tree.Write("file", TestData.Random(3_000_000, 2));
        NbdBackend chain = NbdBackend.Compose(new LinuxdiskPlugin { Directory = tree.Path, Size = 1 << 20 });
        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => chain.StartAsync().AsTask())!.Message, Does.StartWith("linuxdisk: mke2fs failed: exit code 1"));
        Assert.Throws<ArgumentException>(() => _ = new LinuxdiskPlugin { Directory = "/", Type = "xfs" });
    }

    [Test]
    public async Task A_directory_is_a_compact_disc([Values("xorriso", "genisoimage")] string program)
    {
        Peer.Require(program, "isoinfo", "qemu-img");
        using var tree = new ScratchDirectory();
        using var folder = new ScratchDirectory();
        tree.Write("a file with a long name", TestData.Random(100_000, 4));
        await using InteropServer server = await InteropServer.StartAsync(
            new IsoPlugin { Directories = [tree.Path], Options = ["-J", "-r", "-V", "A label"], Program = program });
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", server.Uri, folder["iso"]);
        Assert.That(await Peer.OutputAsync("isoinfo", "-d", "-i", folder["iso"]), Does.Contain("Volume id: A label"));
        Assert.That(await Peer.OutputAsync("isoinfo", "-f", "-R", "-i", folder["iso"]), Does.Contain("/a file with a long name"));
        Assert.That((await File.ReadAllBytesAsync(folder["iso"])).AsSpan().IndexOf(TestData.Random(100_000, 4)), Is.GreaterThan(0));
    }

    private static long Value(string stats, string name)
        => long.Parse(
            stats.Split('\n').First(line => line.StartsWith(name, StringComparison.Ordinal))[name.Length..].Trim(),
            System.Globalization.CultureInfo.InvariantCulture);
}
