using System.Buffers.Binary;
using NbdKit.Filters.Ext2;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>VHDX images made by QEMU.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class VhdxTests
{
    private const int Seed = 20261127;
    private const int Size = (9 << 20) + (3 * 512);
    private const int Mebibyte = 1 << 20;

    private static readonly string[] Formats = ["dynamic", "fixed", "dynamic,block_size=1048576", "dynamic,block_size=268435456"];

    private static async Task<(string Image, byte[] Content)> MakeAsync(ScratchDirectory folder, string format, int size = Size)
    {
        Peer.Require("qemu-img");
        byte[] content = ImageImages.Content(size, Seed);
        // Room for blocks that are not there.
        content.AsSpan(size / 3, size / 3).Clear();
        folder.Write("raw", content);
        await Peer.OutputAsync(
            "qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", $"subformat={format}", folder["raw"], folder["disk.vhdx"]);
        return (folder["disk.vhdx"], content);
    }

    private static NbdBackend Chain(string image) => NbdBackend.Compose(new VhdxPlugin { Chain = NbdBackend.Compose(new FilePlugin { Path = image }) });

    private static NbdBackend Memory(byte[] image) => NbdBackend.Compose(new VhdxPlugin { Chain = Disk(image) });

    private static NbdBackend Disk(byte[] data) => NbdBackend.Compose(new TestPlugin(new TestExport { Data = data }));

    private static string Refusal(byte[] image) => TestData.Failure(async () => await Memory(image).OpenAsync()).Message;

    [Test]
    public async Task Any_read_is_that_of_the_disk_that_went_in([ValueSource(nameof(Formats))] string format)
    {
        using var folder = new ScratchDirectory();
        (string image, byte[] content) = await MakeAsync(folder, format);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        await ImageImages.CheckAsync(disk, content, Seed);
        if (format.EndsWith("=1048576", StringComparison.Ordinal))
        {
            ExtentList extents = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, default);
            Assert.That(extents.Count(extent => extent.Status == (ExtentStatus.Hole | ExtentStatus.Zero)), Is.Positive, "holes");
        }
    }

    [Test]
    public async Task QEMU_sees_the_same_through_a_server([ValueSource(nameof(Formats))] string format)
    {
        Peer.Require("qemu-img", "nbdcopy");
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, format);
        await using InteropServer server = await InteropServer.StartAsync(Chain(image));
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["copy"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vhdx", "-O", "raw", image, folder["expected"]);
        await SameFile.CheckAsync(folder["copy"], folder["expected"]);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vhdx", server.Uri, image);
    }

    [Test]
    public async Task A_disk_of_more_blocks_than_one_bitmap_tells_of_is_read()
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["disk.vhdx"];
        await Peer.OutputAsync("qemu-img", "create", "-f", "vhdx", "-o", "subformat=dynamic,block_size=1048576", image, "20G");
        await Peer.OutputAsync(
            "qemu-io", "-f", "vhdx", "-c", "write -P 1 0 64k", "-c", "write -P 2 4294901760 128k", "-c", "write -P 3 19G 3M", "-c",
            "write -P 4 21474770944 64k", image);
        await using InteropServer server = await InteropServer.StartAsync(Chain(image));
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vhdx", server.Uri, image);
    }

    [Test]
    public async Task The_command_serves_an_image()
    {
        Peer.Require("nbdcopy");
        using var folder = new ScratchDirectory();
        (string image, _) = await MakeAsync(folder, "dynamic");
        (int status, _, string error) = await ToolProcess.RunAsync("vhdx", image, "--run", $"nbdcopy \"$uri\" {folder["copy"]}");
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(folder["copy"], folder["raw"]);
    }

    [Test]
    public async Task Blocks_that_are_not_here_are_those_of_the_parent()
    {
        using var folder = new ScratchDirectory();
        (string path, byte[] content) = await MakeAsync(folder, "dynamic,block_size=1048576");
        byte[] image = await File.ReadAllBytesAsync(path);
        byte[] parent = TestData.Random(Size - 5000, Seed);
        int table = Region(image, new Guid("2DC27766-F623-4200-9D64-115E9BFD4A08"));
        image[Item(image, new Guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")) + 4] |= 2;
        // The first block becomes one that is here in part, with a bitmap at the end of the file.
        int bitmap = (image.Length + Mebibyte - 1) / Mebibyte;
        Array.Resize(ref image, (bitmap + 1) * Mebibyte);
        byte[] bits = TestData.Random(2048 / 8, Seed);
        bits.CopyTo(image, bitmap * Mebibyte);
        Assert.That(image[table] & 7, Is.EqualTo(6), "the state of the first block");
        image[table] |= 7;
        BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(table + (4096 * 8)), ((ulong)bitmap << 20) | 6);
        byte[] expected = (byte[])content.Clone();
        byte[] below = [.. parent, .. new byte[5000]];
        for (int sector = 0; sector < Size / 512; sector++)
        {
            int block = sector / 2048;
            int state = image[table + (block * 8)] & 7;
            if (state == 0 || (state == 7 && (bits[sector / 8] >> (sector % 8) & 1) == 0))
            {
                below.AsSpan(sector * 512, 512).CopyTo(expected.AsSpan(sector * 512));
            }
        }
        await using NbdBackend chain = NbdBackend.Compose(new VhdxPlugin { Parent = Disk(parent), Chain = Disk(image) });
        await using NextContext disk = await chain.OpenAsync();
        await ImageImages.CheckAsync(disk, expected, Seed);
        Assert.That(Refusal(image), Does.Contain("its parent, which was not given"));
    }

    [Test]
    public async Task A_damaged_header_or_table_has_a_copy_and_a_dirty_log_is_refused()
    {
        using var folder = new ScratchDirectory();
        (string path, byte[] content) = await MakeAsync(folder, "dynamic", 1 << 20);
        byte[] image = await File.ReadAllBytesAsync(path);
        foreach ((int one, int two, string what) in new[] { (64 << 10, 128 << 10, "both of its headers"), (192 << 10, 256 << 10, "both of its region tables") })
        {
            foreach (int at in new[] { one, two })
            {
                byte[] damaged = (byte[])image.Clone();
                damaged[at + 100] ^= 1;
                await using NbdBackend chain = Memory(damaged);
                await using NextContext disk = await chain.OpenAsync();
                await ImageImages.CheckAsync(disk, content, Seed, 5);
            }
            byte[] broken = (byte[])image.Clone();
            broken[one + 100] ^= 1;
            broken[two + 200] ^= 1;
            Assert.That(Refusal(broken), Does.Contain(what));
        }
        byte[] dirty = (byte[])image.Clone();
        foreach (int at in new[] { 64 << 10, 128 << 10 })
        {
            dirty[at + 48] = 1;
            dirty.AsSpan(at + 4, 4).Clear();
            BinaryPrimitives.WriteUInt32LittleEndian(dirty.AsSpan(at + 4), ~Checksum.Crc32C(Checksum.Start, dirty.AsSpan(at, 4096)));
        }
        Assert.That(Refusal(dirty), Does.Contain("changes in its log"));
        Assert.That(Refusal(image[..300_000]), Does.Contain("in its headers"));
        Assert.That(Refusal(new byte[5]), Does.Contain("not a VHDX image"));
    }

    [Test]
    public async Task Any_damage_is_found_or_without_effect_and_ends_soon()
    {
        using var folder = new ScratchDirectory();
        (string path, _) = await MakeAsync(folder, "dynamic,block_size=1048576", 2 << 20);
        byte[] image = await File.ReadAllBytesAsync(path);
        int table = Region(image, new Guid("2DC27766-F623-4200-9D64-115E9BFD4A08"));
        int metadata = Region(image, new Guid("8B7CA206-4790-4B9A-B8FE-575F050F886E"));
        int[] places =
        [
            .. Enumerable.Range(0, 16), .. Enumerable.Range(64 << 10, 80), .. Enumerable.Range(128 << 10, 80), .. Enumerable.Range(192 << 10, 100),
            .. Enumerable.Range(table, 32), .. Enumerable.Range(metadata, 300), .. Enumerable.Range(metadata + (64 << 10), 100),
        ];
        await ImageImages.FuzzAsync(image, Memory, places, Seed, 400);
    }

    private static int Region(byte[] image, Guid id)
    {
        int at = (192 << 10) + image.AsSpan(192 << 10, 65_536).IndexOf(id.ToByteArray());
        return (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(at + 16));
    }

    private static int Item(byte[] image, Guid id)
    {
        int metadata = Region(image, new Guid("8B7CA206-4790-4B9A-B8FE-575F050F886E"));
        int at = metadata + image.AsSpan(metadata, 65_536).IndexOf(id.ToByteArray());
        return metadata + (int)BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(at + 16));
    }
}
