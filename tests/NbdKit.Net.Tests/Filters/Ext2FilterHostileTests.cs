using System.Buffers.Binary;
using NbdKit.Filters;
using NbdKit.Filters.Ext2;
using NbdKit.Layers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Images that lie: every lie ends in a clear error or in content, after a bounded number of calls below.</summary>
public sealed partial class Ext2FilterHostileTests
{
    private const int Block = 1024;
    private static readonly CancellationToken None = CancellationToken.None;
    private Ext2Image _plain = null!;
    private Ext2Image _old = null!;
    private Ext2Image _sums = null!;
    private long _big;
    private long _bigOld;

    [OneTimeSetUp]
    public async Task MakeImages()
    {
        using var tree = new Ext2Tree(many: 0);
        _plain = await Ext2Image.MakeAsync(tree, "-t ext4 -b 1024 -O ^has_journal,^metadata_csum,^uninit_bg,^resize_inode -N 32", "256K");
        _old = await Ext2Image.MakeAsync(tree, "-t ext2 -b 1024 -O ^resize_inode -N 32", "256K");
        _sums = await Ext2Image.MakeAsync(tree, "-t ext4 -b 1024 -O ^has_journal,metadata_csum,inline_data,^resize_inode -I 256 -N 32", "256K");
        _big = await _plain.InodeOffsetAsync("/big");
        _bigOld = await _old.InodeOffsetAsync("/big");
    }

    [OneTimeTearDown]
    public void RemoveImages()
    {
        _plain?.Dispose();
        _old?.Dispose();
        _sums?.Dispose();
    }

    private static byte[] Bytes(Ext2Image image) => File.ReadAllBytes(image.Path);

    private static void U16(byte[] image, long at, int value)
        => BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan((int)at), (ushort)value);

    private static void U32(byte[] image, long at, long value)
        => BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan((int)at), (uint)value);

    /// <summary>Opens a file, reads all of it that is not absurd, its extents, and writes back what was read.</summary>
    private static async Task<(long Size, int Calls)> UseAsync(byte[] image, string path = "/big")
    {
        var export = new TestExport { Data = image };
        var plugin = new TestPlugin(export);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Ext2Filter { File = path });
        await using NextContext file = await chain.OpenAsync();
        long size = file.Info.Size;
        int length = (int)Math.Min(size, 100_000);
        if (length > 0)
        {
            byte[] content = await TestData.ReadAsync(file, 0, length);
            await TestData.ReadAsync(file, size - 1, 1);
            await file.ExtentsAsync(0, size, RequestFlags.None, new ExtentList(0, size), None);
            if (file.Info.CanWrite)
            {
                await file.WriteAsync(content.AsMemory(0, 10), 0, RequestFlags.None, None);
            }
        }
        return (size, plugin.Calls.Count);
    }

    private static string Refusal(byte[] image, NbdError error = NbdError.IoError, string path = "/big")
    {
        NbdException e = TestData.Failure(() => UseAsync(image, path));
        Assert.That(e.Error, Is.EqualTo(error), e.Message);
        return e.Message;
    }

    [TestCase(0)]
    [TestCase(1024)]
    [TestCase(2047)]
    public void A_disk_that_is_too_small_has_no_file_system(int size)
        => Assert.That(Refusal(new byte[size], NbdError.InvalidArgument), Does.Contain("too small"));

    [Test]
    public void A_disk_of_something_else_has_no_file_system()
        => Assert.That(Refusal(TestData.Random(100_000), NbdError.InvalidArgument), Does.Contain("no ext2, ext3 or ext4 file system"));

    [TestCase(0x01u, "not supported: compression")]
    [TestCase(0x1001u, "not supported: compression, dirdata")]
    [TestCase(0x04u, "needs_recovery")]
    [TestCase(0x08u, "journal_dev")]
    [TestCase(0x4000_0020u, "not supported: feature 0x20, feature 0x40000000")]
    public void Features_that_are_not_supported_are_named(uint feature, string message)
    {
        byte[] image = Bytes(_plain);
        U32(image, 1024 + 0x60, BitConverter.ToUInt32(image, 1024 + 0x60) | feature);
        Assert.That(Refusal(image, NbdError.InvalidArgument), Does.Contain(message));
    }

    [TestCase(0x18, 7L, "blocks of 2^7 KiB")]
    [TestCase(0x18, 0xFFFF_FFFFL, "blocks of 2^4294967295 KiB")]
    [TestCase(0x04, 0L, "0 blocks")]
    [TestCase(0x14, 2L, "of which 2 is the first")]
    [TestCase(0x14, 0xFFFF_FFFFL, "of which 4294967295 is the first")]
    [TestCase(0x20, 0L, "0 blocks and")]
    [TestCase(0x28, 0L, "and 0 inodes in a group")]
    [TestCase(0x58, 0L, "inodes of 0 bytes")]
    [TestCase(0x58, 64L, "inodes of 64 bytes")]
    [TestCase(0x58, 2048L, "inodes of 2048 bytes")]
    [TestCase(0x58, 384L, "inodes of 384 bytes")]
    [TestCase(0xFE, 32L, "group descriptors of 32 bytes")]
    [TestCase(0xFE, 96L, "group descriptors of 96 bytes")]
    [TestCase(0x00, 1L, "names inode 2 of 1")]
    [TestCase(0x54, 0xFFFF_FFFFL, "names inode")]
    public void A_superblock_that_cannot_be_true_is_refused(int at, long value, string message)
    {
        byte[] image = Bytes(_plain);
        if (at is 0x58 or 0xFE)
        {
            U16(image, 1024 + at, (int)value);
        }
        else
        {
            U32(image, 1024 + at, value);
        }
        Assert.That(Refusal(image), Does.Contain(message));
    }

    [Test]
    public void A_file_system_that_is_larger_than_the_disk_is_refused()
    {
        byte[] image = Bytes(_plain);
        Assert.That(Refusal(image[..^1], NbdError.InvalidArgument), Does.Contain("truncated"));
        U32(image, 1024 + 0x150, 0x8000_0000);
        Assert.That(Refusal(image, NbdError.InvalidArgument), Does.Contain("truncated"));
    }

    [TestCase(0u)]
    [TestCase(256u)]
    [TestCase(uint.MaxValue)]
    public void A_table_of_inodes_outside_the_file_system_is_refused(uint block)
    {
        byte[] image = Bytes(_plain);
        U32(image, 2048 + 8, block);
        Assert.That(Refusal(image), Does.Contain("outside the file system"));
    }

    [Test]
    public async Task Directories_that_cannot_be_true_are_refused()
    {
        long root = await _plain.InodeOffsetAsync("/");
        byte[] image = Bytes(_plain);
        long first = BitConverter.ToUInt32(image, (int)root + 0x28 + 20) * (long)Block;
        foreach ((int at, int value, string message) in new[]
        {
            (4, 0, "does not fit"), (4, 4, "does not fit"), (4, 13, "does not fit"), (4, 65_535, "does not fit"),
            (4, 1028, "does not fit"), (4, 1020, "cut off"), (6, 250, "does not fit"),
        })
        {
            image = Bytes(_plain);
            U16(image, first + at, value);
            Assert.That(Refusal(image), Does.Contain(message), $"{at}: {value}");
        }
        foreach ((uint size, string message) in new[]
        {
            (0u, "0 bytes long"), (1023u, "1023 bytes long"), (0x4000_0000u, "has a hole"),
        })
        {
            image = Bytes(_plain);
            U32(image, root + 4, size);
            Assert.That(Refusal(image, path: "/nothing"), Does.Contain(message));
        }
        foreach (uint inode in new uint[] { 1, 10, 33, uint.MaxValue })
        {
            image = Bytes(_plain);
            int name = image.AsSpan((int)first, Block).IndexOf("big"u8);
            U32(image, first + name - 8, inode);
            Assert.That(Refusal(image), Does.Contain($"names inode {inode}"));
        }
    }

    [Test]
    public async Task A_directory_without_an_end_is_given_up()
    {
        // Each block of pointers leads 256 times to the one below, so that one block of entries is there 16 million times.
        long root = await _old.InodeOffsetAsync("/");
        byte[] image = Bytes(_old);
        uint first = BitConverter.ToUInt32(image, (int)root + 0x28);
        U32(image, root + 4, 0xFFFF_FC00);
        for (int i = 0; i < 15; i++)
        {
            U32(image, root + 0x28 + (4 * i), i < 12 ? first : 200 + i - 12);
        }
        for (int i = 0; i < 3 * Block; i += 4)
        {
            U32(image, (200 * Block) + i, i < Block ? first : 200 + (i / Block) - 1);
        }
        Assert.That(Refusal(image, NbdError.InvalidArgument, "/nothing"), Does.Contain("larger than 128 MiB"));
    }

    [Test]
    public async Task The_cache_of_metadata_is_bounded_and_keeps_what_was_used_last()
    {
        var plugin = new TestPlugin(new TestExport { Data = TestExport.Pattern(4 << 20) });
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext next = await chain.OpenAsync();
        var cache = new MetadataCache(new ImageDisk(next), Block);
        for (int i = 0; i < 3000; i++)
        {
            MetadataBlock block = await cache.ReadAsync(i, None);
            Assert.That(block.Data.AsSpan().SequenceEqual(plugin.Data.AsSpan(i * Block, Block)));
            await cache.ReadAsync(0, None);
        }
        Assert.That(plugin.Calls, Has.Count.EqualTo(3000));
        await cache.ReadAsync(2999 - 1022, None);
        Assert.That(plugin.Calls, Has.Count.EqualTo(3000), "1,024 blocks are kept");
        await cache.ReadAsync(2999 - 1023, None);
        Assert.That(plugin.Calls, Has.Count.EqualTo(3001), "and not one more");
    }

    [Test]
    public async Task Encrypted_and_compressed_files_are_refused()
    {
        foreach ((int flag, string word) in new[] { (0x8, "encrypted"), (0x2, "compressed") })
        {
            foreach (string path in new[] { "/big", "/" })
            {
                byte[] image = Bytes(_plain);
                image[await _plain.InodeOffsetAsync(path) + 0x21] |= (byte)flag;
                Assert.That(Refusal(image, NbdError.InvalidArgument), Does.Contain(word));
            }
        }
    }

    [Test]
    public async Task Every_checksum_is_verified()
    {
        foreach ((string what, long at) in new[]
        {
            ("superblock", 1024 + 0x88L),
            ("descriptor of group 0", 2048 + 0x0E),
            ("inode", await _sums.InodeOffsetAsync("/big") + 0x10),
            ("inode", await _sums.InodeOffsetAsync("/big") + 0xA4),
            ("inode", await _sums.InodeOffsetAsync("/") + 0x10),
        })
        {
            byte[] image = Bytes(_sums);
            Assert.That((await UseAsync(image)).Size, Is.EqualTo(20_001));
            image[at] ^= 0x40;
            Assert.That(Refusal(image), Does.Contain(what).And.Contain("wrong checksum"));
        }
        byte[] root = Bytes(_sums);
        long inode = await _sums.InodeOffsetAsync("/");
        int block = (int)BitConverter.ToUInt32(root, (int)inode + 0x28 + 20) * Block;
        root[block + 7] ^= 1;
        Assert.That(Refusal(root), Does.Contain("has a block with the wrong checksum"));
        root[block + Block - 5] ^= 1;
        Assert.That(Refusal(root), Does.Contain("has a block without a checksum"));
    }

    [Test]
    public void The_checksums_are_those_of_the_standards()
    {
        byte[] check = [.. "123456789"u8];
        Assert.That(~Checksum.Crc32C(Checksum.Start, check), Is.EqualTo(0xE306_9283));
        Assert.That(~Checksum.Crc32C(Checksum.Crc32C(Checksum.Start, check.AsSpan(0, 1)), check.AsSpan(1)), Is.EqualTo(0xE306_9283));
        Assert.That(
            Checksum.Crc32COfZeroes(Checksum.Start, 6), Is.EqualTo(Checksum.Crc32C(Checksum.Start, new byte[6])));
        Assert.That(Checksum.Crc16(Checksum.Start, check), Is.EqualTo(0x4B37), "CRC-16/MODBUS");
    }

    [Test]
    public async Task Damaged_images_never_do_worse_than_fail([Values("extents", "indirect", "checksums")] string kind, [Values(1, 2)] int seed)
    {
        Ext2Image source = kind switch { "extents" => _plain, "indirect" => _old, _ => _sums };
        byte[] original = Bytes(source);
        // Most of what is not zero in front of the files is metadata.
        int[] places = [.. Enumerable.Range(1024, 60 * Block).Where(i => original[i] != 0)];
        string[] paths = ["/big", "/folder/sub/file", "/slow", "/tiny", "/medium", "/folder/up", "/nothing", "/folder/sub/chain"];
        var random = new Random(seed);
        int right = 0;
        int refused = 0;
        for (int round = 0; round < 700; round++)
        {
            byte[] image = (byte[])original.Clone();
            for (int i = random.Next(1, 12); i > 0; i--)
            {
                int at = random.Next(4) == 0 ? random.Next(1024, 60 * Block) : places[random.Next(places.Length)];
                switch (random.Next(4))
                {
                    case 0:
                        image[at] ^= (byte)(1 << random.Next(8));
                        break;
                    case 1:
                        image[at] = random.Next(2) == 0 ? (byte)0xFF : (byte)0;
                        break;
                    case 2:
                        U32(image, at & ~3, random.Next(300));
                        break;
                    default:
                        image[at] = (byte)random.Next(256);
                        break;
                }
            }
            string path = paths[random.Next(paths.Length)];
            try
            {
                (_, int calls) = await UseAsync(image, path);
                Assert.That(calls, Is.LessThan(2000), $"{kind}, seed {seed}, round {round}: {path}");
                right++;
            }
            catch (NbdException)
            {
                refused++;
            }
            catch (Exception e) when (e is not AssertionException)
            {
                throw new AssertionException($"{kind}, seed {seed}, round {round}: {path}", e);
            }
        }
        Assert.That(Math.Min(right, refused), Is.GreaterThan(20), "both happen");
    }
}
