using System.Text.Json;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>The filters that change the size, shape and names of disks, under real clients and beside nbdkit's own.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class GeometryFilterTests
{
    private static readonly byte[] Content = TestData.Random((1 << 20) + 100);

    // The same command lines for nbdkit and for this library's command; what nbdcopy gets from them must be the same.
    [TestCase("truncate", "round-up=4096")]
    [TestCase("truncate", "truncate=2M")]
    [TestCase("truncate", "truncate=100000", "round-up=64k")]
    [TestCase("truncate", "round-down=65536")]
    [TestCase("protect", "protect=0-511", "protect=~100-2000")]
    [TestCase("blocksize-policy", "blocksize-preferred=32K")]
    [TestCase("blocksize-policy", "blocksize-minimum=1", "blocksize-maximum=1M", "blocksize-error-policy=error")]
    [TestCase("exportname", "exportname-list=explicit", "exportname=", "exportdesc=fixed:a disk")]
    public async Task Nbdkit_and_the_command_serve_the_same(string filter, params string[] parameters)
    {
        Peer.Require("nbdkit", "nbdcopy", "nbdinfo");
        using var folder = new ScratchDirectory();
        string file = folder.Write("disk", Content);
        string[] rest = [$"--filter={filter}", "file", $"file={file}", .. parameters];
        (int status, _, string error) = await ToolProcess.RunAsync(
            ["-U", folder["s1"], "-r", .. rest, "--run", $"nbdcopy \"$uri\" {folder["ours"]} && nbdinfo --json --list \"$uri\" > {folder["info"]}"]);
        Assert.That((status, error), Is.EqualTo((0, "")));
        await Peer.OutputAsync(
            "nbdkit", ["-U", folder["s2"], "-r", .. rest, "--run", $"nbdcopy \"$uri\" {folder["theirs"]} && nbdinfo --json --list \"$uri\" > {folder["info2"]}"]);
        await SameFile.CheckAsync(folder["ours"], folder["theirs"], filter);
        Assert.That(Facts(folder["info"]), Is.EqualTo(Facts(folder["info2"])));
    }

    [Test]
    public async Task Qemu_io_may_write_zeroes_beyond_the_end_and_nothing_else()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            Plugin(), new TruncateFilter { RoundUp = 4096 });
        await Peer.OutputAsync(
            "qemu-io", "-f", "raw", "-c", "read -P 0 1048676 3996", "-c", "write -z 1048000 4096", "-c", "write -P 0 1048676 3996",
            "-c", "discard 1044480 8192", "-c", "flush", server.Uri);
        PeerResult refused = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "write -P 1 1048576 4096", server.Uri);
        Assert.That(refused.ToString(), Does.Contain("No space left on device"));
    }

    [Test]
    public async Task Qemu_io_cannot_change_what_is_protected()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            new MemoryPlugin { Size = 1 << 20 }, new ProtectFilter { Ranges = [new(65_536, 131_071)] });
        await Peer.OutputAsync(
            "qemu-io", "-f", "raw", "-c", "write -P 1 0 65536", "-c", "write -P 0 65536 65536", "-c", "write -z 0 1M", "-c", "discard 0 1M",
            server.Uri);
        PeerResult refused = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "write -P 1 131071 1", server.Uri);
        Assert.That(refused.ToString(), Does.Contain("Operation not permitted"));
    }

    [Test, Property("Threat", "nbdkit-80033669")]
    public async Task Qemu_img_sees_the_map_that_it_made_itself()
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string qcow = folder["q"];
        await Peer.OutputAsync("qemu-img", "create", "-f", "qcow2", qcow, "4M");
        await Peer.OutputAsync("qemu-io", "-c", "write -P 1 64k 128k", "-c", "write -P 2 1M 1M", "-c", "write -z 1M 256k", qcow);
        string map = await Peer.OutputAsync("qemu-img", "map", "--output=json", qcow);
        string list = folder.Write("list", System.Text.Encoding.UTF8.GetBytes(map));
        string raw = folder["raw"];
        await Peer.OutputAsync("qemu-img", "convert", "-O", "raw", "-S", "0", qcow, raw);
        await using InteropServer server = await InteropServer.StartAsync(
            new FilePlugin { Path = raw }, new ExtentlistFilter { Extents = ExtentlistFilter.ReadFile(list) });
        Assert.That(
            Map(await Peer.OutputAsync("qemu-img", "map", "-f", "raw", "--output=json", server.Uri)), Is.EqualTo(Map(map)));
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.Uri, qcow);
        await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write -P 7 3M 64k", "-c", "write -z 64k 64k", server.Uri);
        await Peer.OutputAsync("qemu-io", "-c", "write -P 7 3M 64k", "-c", "write -z 64k 64k", qcow);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.Uri, qcow);
    }

    private static ModelPlugin Plugin() => new(Content);

    private static string Facts(string path)
    {
        using JsonDocument info = JsonDocument.Parse(File.ReadAllText(path));
        return string.Join("; ", info.RootElement.GetProperty("exports").EnumerateArray().Select(export => string.Join(", ",
            new[] { "export-name", "description", "export-size", "can_cache", "block_size_minimum", "block_size_preferred" }
                .Select(name => export.TryGetProperty(name, out JsonElement value) ? $"{name}={value}" : ""))));
    }

    // Whether each range is there and how it reads, without where it is in a file.
    private static string Map(string json)
    {
        using JsonDocument map = JsonDocument.Parse(json);
        var parts = new List<(long Start, long End, bool Zero, bool Data)>();
        foreach (JsonElement item in map.RootElement.EnumerateArray())
        {
            long start = item.GetProperty("start").GetInt64();
            var part = (start, start + item.GetProperty("length").GetInt64(), item.GetProperty("zero").GetBoolean(), item.GetProperty("data").GetBoolean());
            if (parts.Count > 0 && (parts[^1].Zero, parts[^1].Data) == (part.Item3, part.Item4))
            {
                parts[^1] = parts[^1] with { End = part.Item2 };
            }
            else
            {
                parts.Add(part);
            }
        }
        return string.Join("; ", parts);
    }
}
