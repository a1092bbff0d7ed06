using System.Buffers.Binary;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>VMware images made by QEMU.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class VmdkTests
{
    private const int Seed = 20261126;
    private const int Size = (9 << 20) + (3 * 512);

    private static readonly string[] Formats =
        ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"];

    private static readonly string[] Sparse = ["monolithicSparse", "streamOptimized"];

    private static async Task<(string Image, byte[] Content)> MakeAsync(ScratchDirectory folder, string format, int size = Size)
    {
        Peer.Require("qemu-img");
        byte[] content = ImageImages.Content(size, Seed);
        folder.Write("raw", content);
        await Peer.OutputAsync(
            "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", $"subformat={format}", folder["raw"], folder["disk.vmdk"]);
        return (folder["disk.vmdk"], content);
    }

    private static NbdBackend Chain(string image)
        => NbdBackend.Compose(VmdkPlugin.Entry.Create(new NbdParameters("vmdk", [new("file", image)])));

    private static NbdBackend Memory(byte[] image)
        => NbdBackend.Compose(new VmdkPlugin { Chain = NbdBackend.Compose(new TestPlugin(new TestExport { Data = image })) });

    [Test]
    public async Task Any_read_is_that_of_the_disk_that_went_in([ValueSource(nameof(Formats))] string format)
    {
        using var folder = new ScratchDirectory();
        (string image, byte[] content) = await MakeAsync(folder, format);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        await ImageImages.CheckAsync(disk, content, Seed);
    }

    [Test]
    public async Task QEMU_sees_the_same_through_a_server_bytes_and_holes([ValueSource(nameof(Formats))] string format)
    {
        Peer.Require("qemu-img", "nbdcopy");
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, format);
        await using InteropServer server = await InteropServer.StartAsync(Chain(image));
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["copy"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, folder["expected"]);
        await SameFile.CheckAsync(folder["copy"], folder["expected"]);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vmdk", server.Uri, image);
        Assert.That(await ImageImages.MapAsync("raw", server.Uri), Is.EqualTo(await ImageImages.MapAsync("vmdk", image)));
    }

    [TestCase("twoGbMaxExtentSparse", "5G")]
    [TestCase("twoGbMaxExtentFlat", "5G")]
    [TestCase("monolithicSparse,zeroed_grain=on", "6G")]
    public async Task Large_disks_are_read_across_their_extents(string format, string size)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["disk.vmdk"];
        await Peer.OutputAsync("qemu-img", "create", "-f", "vmdk", "-o", $"subformat={format}", image, size);
        await Peer.OutputAsync(
            "qemu-io", "-f", "vmdk", "-c", "write -P 1 0 64k", "-c", "write -P 2 2145378304 4M", "-c", "write -P 3 4G 1000k", "-c",
            "write -P 4 1G 1M", "-c", "write -z 1G 512k", "-c", "write -P 5 5368643072 64k", image);
        await using InteropServer server = await InteropServer.StartAsync(Chain(image));
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vmdk", server.Uri, image);
        Assert.That(await ImageImages.MapAsync("raw", server.Uri), Is.EqualTo(await ImageImages.MapAsync("vmdk", image)));
    }

    [Test]
    public async Task A_directory_at_the_end_is_found_by_the_footer()
    {
        using var folder = new ScratchDirectory();
        (string image, byte[] content) = await MakeAsync(folder, "streamOptimized");
        byte[] bytes = await File.ReadAllBytesAsync(image);
        Array.Resize(ref bytes, (bytes.Length + 511) / 512 * 512);
        byte[] footer = new byte[1536];
        BinaryPrimitives.WriteUInt64LittleEndian(footer, 1);
        BinaryPrimitives.WriteUInt32LittleEndian(footer.AsSpan(12), 3);
        bytes.AsSpan(0, 512).CopyTo(footer.AsSpan(512));
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(56), ulong.MaxValue);
        byte[] stream = [.. bytes, .. footer];
        string path = folder.Write("stream.vmdk", stream);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "vmdk", "-F", "raw", path, folder["raw"]);
        await using (NbdBackend chain = Chain(path))
        {
            await using NextContext disk = await chain.OpenAsync();
            await ImageImages.CheckAsync(disk, content, Seed);
        }
        await using NbdBackend cut = Memory(stream[..^512]);
        Assert.That(TestData.Failure(async () => await cut.OpenAsync()).Message, Does.Contain("no footer"));
    }

    [Test]
    public async Task The_command_serves_an_image()
    {
        Peer.Require("nbdcopy");
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, "twoGbMaxExtentSparse");
        (int status, _, string error) = await ToolProcess.RunAsync("vmdk", image, "--run", $"nbdcopy \"$uri\" {folder["copy"]}");
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(folder["copy"], folder["raw"]);
    }

    [Test]
    public async Task Files_outside_of_the_directory_are_not_looked_at()
    {
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, "monolithicFlat");
        string text = await File.ReadAllTextAsync(image);
        File.CreateSymbolicLink(folder["link"], folder["raw"]);
        Directory.CreateDirectory(folder["folder"]);
        foreach ((string name, string message) in new[]
        {
            ("/etc/passwd", "not one of its own directory"), ("../raw", "not one of its own directory"), ("..", "not one of"),
            ("a\\b", "not one of"), ("link", "is not there"), ("missing", "is not there"), ("folder", "is not there"),
        })
        {
            await File.WriteAllTextAsync(folder["bad.vmdk"], text.Replace("disk-flat.vmdk", name));
            await using NbdBackend chain = Chain(folder["bad.vmdk"]);
            Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain(message), name);
        }
    }

    [Test]
    public async Task Snapshots_are_refused()
    {
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, "monolithicSparse");
        await Peer.OutputAsync("qemu-img", "create", "-f", "vmdk", "-b", image, "-F", "vmdk", folder["snapshot.vmdk"]);
        await using NbdBackend chain = Chain(folder["snapshot.vmdk"]);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("only the changes"));
    }

    [Test]
    public async Task Any_damage_is_found_or_without_effect_and_ends_soon([ValueSource(nameof(Sparse))] string format)
    {
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, format, 1 << 20);
        byte[] bytes = await File.ReadAllBytesAsync(image);
        // The header, the descriptor and what is not zero of the tables; then all the rest now and then.
        int[] places = [.. Enumerable.Range(0, 512), .. Enumerable.Range(512, Math.Min(bytes.Length, 128 << 10) - 512).Where(at => bytes[at] != 0 || at % 512 < 8)];
        await ImageImages.FuzzAsync(bytes, Memory, places, Seed, 1500);
        await ImageImages.FuzzAsync(bytes, Memory, [.. Enumerable.Range(0, 100)], Seed + 1, 800);
    }
}
