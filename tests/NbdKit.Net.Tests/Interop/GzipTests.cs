using System.Text.Json.Nodes;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>What gzip compresses, as clients see it.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class GzipTests
{
    [TestCase("-1")]
    [TestCase("-9")]
    public async Task A_disk_that_gzip_made_of_several_files_is_what_gzip_makes_of_it(string level)
    {
        Peer.Require("gzip", "qemu-img", "nbdcopy");
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(6 << 20, 11);
        content.AsSpan(1 << 20, 3 << 20).Clear();
        string one = folder.Write("one", content[..(2 << 20)]);
        string two = folder.Write("two", content[(2 << 20)..]);
        string plain = folder.Write("plain", content);
        await Peer.OutputAsync("gzip", "-k", level, one, two);
        folder.Write("disk.gz", [.. await File.ReadAllBytesAsync(one + ".gz"), .. await File.ReadAllBytesAsync(two + ".gz")]);
        await using InteropServer server = await InteropServer.StartAsync(new FilePlugin { Path = folder["disk.gz"] }, new GzipFilter());
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", plain, server.Uri);
        await Peer.OutputAsync("nbdcopy", "--connections=4", server.Uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], plain);
        JsonArray map = JsonNode.Parse(await Peer.OutputAsync("qemu-img", "map", "--output=json", "-f", "raw", server.Uri))!.AsArray();
        Assert.That(
            map.Select(e => ((long?)e!["start"], (long?)e["length"], (bool?)e["data"], (bool?)e["zero"])),
            Is.EqualTo(new (long?, long?, bool?, bool?)[]
            {
                (0, 1 << 20, true, false), (1 << 20, 3 << 20, false, true), (4 << 20, 2 << 20, true, false),
            }));
    }

    [Test]
    public async Task The_command_serves_what_nbdkit_serves()
    {
        Peer.Require("gzip", "nbdkit", "nbdcopy");
        using var folder = new ScratchDirectory();
        string disk = folder.Write("disk", TestData.Random(3_000_001, 12));
        await Peer.OutputAsync("gzip", "-k", disk);
        await Peer.OutputAsync(
            "nbdkit", "-U", "-", "file", disk + ".gz", "--filter=gzip", "--run", $"nbdcopy \"$uri\" {folder["theirs"]}");
        (int status, _, string error) = await ToolProcess.RunAsync(
            "-U", "-", "--filter=gzip", "file", disk + ".gz", "gzip-store=memory", "--run", $"nbdcopy \"$uri\" {folder["ours"]}");
        Assert.That((status, error), Is.EqualTo((0, "")));
        await SameFile.CheckAsync(folder["ours"], folder["theirs"]);
        await SameFile.CheckAsync(folder["ours"], disk);
    }
}
