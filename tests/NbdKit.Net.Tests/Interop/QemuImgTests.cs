using System.Text.Json.Nodes;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>QEMU's qemu-img, with the format given and with the format guessed.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class QemuImgTests
{
    private const int Seed = 1234;
    private static readonly string[][] Formats = [["-f", "raw"], []];
    private static readonly long[] Sizes = [512, 513, 1 << 20, 1_000_123];

    [Test]
    public async Task The_size_is_told([ValueSource(nameof(Sizes))] long size, [ValueSource(nameof(Formats))] string[] format)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = size });

        JsonNode info = JsonNode.Parse(await Peer.OutputAsync("qemu-img", ["info", "--output=json", .. format, server.Uri]))!;

        // QEMU counts in sectors: it rounds up, and takes what it added for zeroes.
        Assert.That((long?)info["virtual-size"], Is.EqualTo((size + 511) / 512 * 512));
        Assert.That((string?)info["format"], Is.EqualTo("raw"));
    }

    [Test]
    public async Task The_map_tells_data_from_holes([ValueSource(nameof(Formats))] string[] format)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = (1 << 20) + 7 });
        await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write 128k 64k", "-c", "write 1048576 7", server.Uri);

        JsonArray map = JsonNode.Parse(await Peer.OutputAsync("qemu-img", ["map", "--output=json", .. format, server.Uri]))!
            .AsArray();

        // What QEMU adds to fill the last sector it calls zero.
        Assert.That(
            map.Select(e => ((long?)e!["start"], (long?)e["length"], (bool?)e["data"], (bool?)e["zero"])),
            Is.EqualTo(new (long?, long?, bool?, bool?)[]
            {
                (0, 131_072, false, true), (131_072, 65_536, true, false), (196_608, 851_968, false, true),
                (1_048_576, 7, true, false), (1_048_583, 505, false, true),
            }),
            map.ToJsonString());
    }

    [Test]
    public async Task A_disk_goes_through_qcow2_and_back(
        [Values(8 << 20, (8 << 20) + 512, (8 << 20) + 77)] int size, [Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(size, Seed);
        Array.Clear(content, 1 << 20, 3 << 20);
        string source = folder.Write("source", content);
        await using InteropServer from = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = size }), socket);
        // The qcow2 image is rounded up to whole sectors, so what comes back needs as much.
        await using InteropServer to = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = (size + 511) / 512 * 512 }), socket);

        // QEMU cannot write less than a sector at the end.
        string[] copy = size % 512 == 0 ? ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw"] : ["nbdcopy"];
        await Peer.OutputAsync(copy[0], [.. copy[1..], source, from.Uri]);
        await Peer.OutputAsync("qemu-img", "convert", "-m", "16", "-W", "-f", "raw", "-O", "qcow2", from.Uri, folder["qcow2"]);
        await Peer.OutputAsync("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", folder["qcow2"], to.Uri);

        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, from.Uri);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", to.Uri, folder["qcow2"]);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", from.Uri, to.Uri);
    }

    [Test]
    public async Task A_difference_is_found()
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(1 << 20, Seed);
        string source = folder.Write("source", content);
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = content.Length });
        await Peer.OutputAsync("nbdcopy", source, server.Uri);
        await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", $"write -P {content[^1] ^ 1} {content.Length - 1} 1", server.Uri);

        PeerResult result = await Peer.RunAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.Uri);

        Assert.That(result.Expect(1).Output, Does.Contain("mismatch at offset"));
    }

    [Test]
    public async Task An_image_inside_is_recognised_unless_it_is_called_raw()
    {
        using var folder = new ScratchDirectory();
        await Peer.OutputAsync("qemu-img", "create", "-f", "qcow2", folder["qcow2"], "1G");
        long size = new FileInfo(folder["qcow2"]).Length;
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = size });
        await Peer.OutputAsync("nbdcopy", folder["qcow2"], server.Uri);

        JsonNode guessed = JsonNode.Parse(await Peer.OutputAsync("qemu-img", "info", "--output=json", server.Uri))!;
        JsonNode raw = JsonNode.Parse(await Peer.OutputAsync("qemu-img", "info", "--output=json", "-f", "raw", server.Uri))!;

        Assert.That(((string?)guessed["format"], (long?)guessed["virtual-size"]), Is.EqualTo(("qcow2", 1L << 30)));
        Assert.That(((string?)raw["format"], (long?)raw["virtual-size"]), Is.EqualTo(("raw", (size + 511) / 512 * 512)));
    }

    [Test]
    public async Task Many_requests_are_kept_in_flight([Values("read", "write")] string what, [Values(4096, 1 << 20)] int bytes)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 64 << 20 });

        string[] options = what == "write" ? ["-w"] : [];
        string printed = await Peer.OutputAsync(
            "qemu-img", ["bench", .. options, "-f", "raw", "-c", "1000", "-d", "64", "-s", $"{bytes}", server.Uri]);

        Assert.That(printed, Does.Contain($"Sending 1000 {what} requests").And.Contain("Run completed"));
    }
}
