using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Archives of GNU tar.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class TarTests
{
    private const int Seed = 20261126;
    private static readonly string LongFolder = string.Join('/', Enumerable.Repeat("a folder with a rather long name", 5));
    private static readonly string[] Formats = ["v7", "oldgnu", "gnu", "ustar", "pax"];

    /// <summary>An archive with a few files, and the file that is of interest, whose name is long if the format can have that.</summary>
    private static async Task<(string Archive, string Entry)> MakeAsync(ScratchDirectory folder, string format, byte[] content)
    {
        Peer.Require("tar", "nbdcopy");
        string entry = format == "v7" ? "folder/disk" : LongFolder + "/disk";
        string root = folder["root"];
        Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(root, entry))!);
        await File.WriteAllBytesAsync(Path.Combine(root, entry), content);
        await File.WriteAllBytesAsync(Path.Combine(root, "disk"), TestData.Random(1_234_567, Seed));
        File.CreateSymbolicLink(Path.Combine(root, "link"), "disk");
        await Peer.OutputAsync("tar", "-C", root, $"--format={format}", "--sort=name", "-cf", folder["tar"], "disk", "link", entry.Split('/')[0]);
        return (folder["tar"], entry);
    }

    [Test]
    public async Task A_file_is_read_as_tar_extracts_it_and_written_back([ValueSource(nameof(Formats))] string format)
    {
        using var folder = new ScratchDirectory();
        string before = folder.Write("before", TestData.Random(2_000_123, Seed + 1));
        string after = folder.Write("after", TestData.Random(2_000_123, Seed + 2));
        (string archive, string entry) = await MakeAsync(folder, format, await File.ReadAllBytesAsync(before));
        await using (InteropServer server = await InteropServer.StartAsync(
            new FilePlugin { Path = archive }, new TarFilter { TarEntry = entry }))
        {
            await Peer.OutputAsync("nbdcopy", "--connections=4", server.Uri, folder["copy"]);
            await SameFile.CheckAsync(folder["copy"], before);
            await Peer.OutputAsync("nbdcopy", "--flush", after, server.Uri);
        }
        await Peer.OutputAsync("tar", "-C", folder.Path, "-xf", archive);
        await SameFile.CheckAsync(folder[entry], after);
        await SameFile.CheckAsync(folder["disk"], Path.Combine(folder["root"], "disk"), "the file before it");
    }

    [Test]
    public async Task The_command_serves_what_nbdkit_serves()
    {
        Peer.Require("nbdkit");
        using var folder = new ScratchDirectory();
        string content = folder.Write("content", TestData.Random(1 << 20, Seed));
        (string archive, string entry) = await MakeAsync(folder, "v7", await File.ReadAllBytesAsync(content));
        // With a long name nbdkit serves the wrong place.
        string[] line = ["--filter=tar", "file", archive, $"tar-entry={entry}", "--run"];
        (int status, _, string error) = await ToolProcess.RunAsync([.. line, $"nbdcopy \"$uri\" {folder["ours"]}"]);
        Assert.That(status, Is.Zero, error);
        await Peer.OutputAsync("nbdkit", ["-U", "-", .. line, $"nbdcopy \"$uri\" {folder["theirs"]}"]);
        await SameFile.CheckAsync(folder["ours"], content);
        await SameFile.CheckAsync(folder["theirs"], content);
    }

    [Test]
    public async Task Headers_of_more_than_8_GiB_are_those_of_tar([Values("gnu", "pax")] string format)
    {
        Peer.Require("tar", "sh");
        using var folder = new ScratchDirectory();
        const long Size = (9L << 30) + 1234;
        folder.WriteHole("big", Size);
        string archive = folder["tar"];
        // Only the headers are of interest: what would follow is a hole here.
        await Peer.OutputAsync("sh", "-c", $"tar -C {folder.Path} --format={format} -cf - big | head -c 4096 > {archive}");
        int start = format == "gnu" ? 512 : 1536;
        await using (FileStream file = File.OpenWrite(archive))
        {
            file.SetLength(start + Size + 10_000);
            file.Position = start + Size - 1;
            file.WriteByte(99);
        }
        Assert.That(await Peer.OutputAsync("tar", "--seek", "-tvf", archive), Does.Contain($" {Size} "));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = archive }, new TarFilter { TarEntry = "big" });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(Size));
        Assert.That(await TestData.ReadAsync(disk, Size - 2, 2), Is.EqualTo(new byte[] { 0, 99 }));
    }

    [TestCase("--format=oldgnu")]
    [TestCase("--format=gnu")]
    [TestCase("--format=pax", "--sparse-version=0.0")]
    [TestCase("--format=pax", "--sparse-version=0.1")]
    [TestCase("--format=pax", "--sparse-version=1.0")]
    public async Task Sparse_files_are_refused_and_what_follows_is_found(params string[] format)
    {
        Peer.Require("tar");
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(10_000, Seed);
        folder.Write("disk", content);
        folder.WriteHole("holes", 10 << 20);
        await using (FileStream file = File.OpenWrite(folder["holes"]))
        {
            // So many pieces that their map does not fit in a header.
            for (int i = 0; i < 40; i++)
            {
                file.Position = i * 200_000;
                file.Write(content, 0, 5000);
            }
        }
        await Peer.OutputAsync("tar", ["-C", folder.Path, "--sparse", .. format, "-cf", folder["tar"], "holes", "disk"]);
        await using NbdBackend holes = NbdBackend.Compose(new FilePlugin { Path = folder["tar"] }, new TarFilter { TarEntry = "holes" });
        Assert.That(TestData.Failure(async () => await holes.OpenAsync()).Message, Does.Contain("sparse"));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = folder["tar"] }, new TarFilter { TarEntry = "disk" });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, content.Length), Is.EqualTo(content));
    }
}
