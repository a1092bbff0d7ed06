using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>FAT disks as dosfstools and mtools see them.</summary>
[Platform("Linux")]
[Parallelizable(ParallelScope.All)]
public sealed class FloppyTests
{
    private const int Seed = 20261127;

    /// <summary>Takes everything out of the partition of a disk; mtools reads no characters beyond the first 65536.</summary>
    private static async Task<string> ExtractAsync(string disk, string folder, bool check)
    {
        Directory.CreateDirectory(folder);
        await Peer.OutputAsync(
            "env", "LC_ALL=C.UTF-8", $"MTOOLS_SKIP_CHECK={(check ? 0 : 1)}", "mcopy", "-s", "-m", "-i", disk + "@@1M", "::*", folder);
        return folder;
    }

    private static async Task FsckAsync(ScratchDirectory folder, string disk)
    {
        await Peer.OutputAsync("dd", "if=" + disk, "of=" + folder["partition"], "bs=1M", "skip=1", "conv=sparse", "status=none");
        await Peer.OutputAsync("fsck.vfat", "-n", folder["partition"]);
    }

    [Test]
    public async Task Programs_find_the_tree_and_nothing_to_repair([Range(1, 3)] int round)
    {
        Peer.Require("fsck.vfat", "mcopy", "qemu-img", "diff");
        using var tree = new ScratchDirectory();
        using var folder = new ScratchDirectory();
        FatTrees.Make(tree.Path, Seed + round);
        long? size = round == 3 ? 300 << 20 : null;
        await using InteropServer server = await InteropServer.StartAsync(new FloppyPlugin { Directory = tree.Path, Size = size });
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", server.Uri, folder["disk"]);
        await FsckAsync(folder, folder["disk"]);
        string copy = await ExtractAsync(folder["disk"], folder["out"], check: true);
        await Peer.OutputAsync("diff", "-r", tree.Path, copy);
        foreach (string file in Directory.EnumerateFiles(tree.Path))
        {
            Assert.That(File.GetLastWriteTime(Path.Combine(copy, Path.GetFileName(file))), Is.EqualTo(File.GetLastWriteTime(file)), $"seed {Seed + round}");
        }
    }

    [Test]
    public async Task Nbdkit_makes_a_disk_with_the_same_files()
    {
        Peer.Require("nbdkit", "mcopy", "qemu-img", "diff");
        using var tree = new ScratchDirectory();
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(tree["sub/Another directory"]);
        tree.Write("sub/große Datei.bin", TestData.Random(300_000, 1));
        tree.Write("sub/Another directory/x", TestData.Random(5, 2));
        tree.Write("README.TXT", TestData.Random(16_384, 3));
        File.CreateSymbolicLink(tree["sub/link"], "x");
        await using InteropServer server = await InteropServer.StartAsync(new FloppyPlugin { Directory = tree.Path });
        // A small one of nbdkit's has so few clusters that mtools takes it for FAT12.
        await using BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(folder, "floppy", tree.Path, "size=1200M");
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", server.Uri, folder["ours"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", nbdkit.Uri, folder["theirs"]);
        string ours = await ExtractAsync(folder["ours"], folder["our files"], check: true);
        string theirs = await ExtractAsync(folder["theirs"], folder["their files"], check: false);
        await Peer.OutputAsync("diff", "-r", ours, theirs);
        File.Delete(tree["sub/link"]);
        await Peer.OutputAsync("diff", "-r", tree.Path, ours);
    }

    [Test]
    public async Task The_command_serves_a_directory()
    {
        Peer.Require("mdir", "fsck.vfat", "qemu-img");
        using var tree = new ScratchDirectory();
        using var folder = new ScratchDirectory();
        tree.Write("A file with a long name.txt", TestData.Random(100, 1));
        (int status, _, string error) = await ToolProcess.RunAsync(
            "floppy", tree.Path, "label=seed disk", "size=64M", "--run", $"qemu-img convert -f raw -O raw \"$uri\" {folder["disk"]}");
        Assert.That(status, Is.Zero, error);
        Assert.That(new FileInfo(folder["disk"]).Length, Is.EqualTo(64 << 20));
        await FsckAsync(folder, folder["disk"]);
        string listing = await Peer.OutputAsync("mdir", "-i", folder["disk"] + "@@1M", "::");
        Assert.That(listing, Does.Contain("SEED DISK").And.Contain("A file with a long name.txt").And.Contain("AFILEW~1"));
        ScratchDirectory.Run("mkfifo", tree["pipe"]);
        (status, _, error) = await ToolProcess.RunAsync("floppy", tree.Path, "--run", "true");
        Assert.That(status, Is.Not.Zero, error);
        Assert.That(error, Does.Contain(tree["pipe"]));
    }
}
