using System.Buffers.Binary;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class VdiPluginTests
{
    private const int Block = 4096;
    private const int Table = 512;
    private const int Data = 1024;
    private static readonly CancellationToken None = CancellationToken.None;

    /// <summary>A dynamic image whose blocks are in the places that the table says.</summary>
    private static byte[] Image(byte[] disk, params uint[] table)
    {
        int stored = table.Where(place => place < 0xFFFF_FFFE).Select(place => (int)place + 1).DefaultIfEmpty(0).Max();
        byte[] image = new byte[Data + (stored * Block)];
        U32(image, 0x40, 0xBEDA107F);
        U32(image, 0x44, 0x10001);
        U32(image, 0x4C, 1);
        U32(image, 0x154, Table);
        U32(image, 0x158, Data);
        U32(image, 0x168, 512);
        BinaryPrimitives.WriteInt64LittleEndian(image.AsSpan(0x170), disk.Length);
        U32(image, 0x178, Block);
        U32(image, 0x180, (uint)table.Length);
        for (int i = 0; i < table.Length; i++)
        {
            U32(image, Table + (i * 4), table[i]);
            if (table[i] < 0xFFFF_FFFE)
            {
                disk.AsSpan(i * Block, Math.Min(Block, disk.Length - (i * Block))).CopyTo(image.AsSpan(Data + ((int)table[i] * Block)));
            }
        }
        return image;
    }

    private static void U32(byte[] image, int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at), value);

    private static NbdBackend Chain(byte[] image, BlockSize blockSize = default)
        => NbdBackend.Compose(new VdiPlugin
        {
            Chain = NbdBackend.Compose(new TestPlugin(
                new TestExport { Data = image, Configure = info => info with { BlockSize = blockSize } })),
        });

    [Test]
    public async Task Any_table_reads_like_its_model([Values(1, 512, 4096)] int minimum)
    {
        for (int seed = 1; seed <= 30; seed++)
        {
            var random = new Random(seed);
            uint[] places = [.. Enumerable.Range(0, random.Next(1, 100)).Select(i => (uint)i)];
            if (random.Next(2) == 0)
            {
                random.Shuffle(places);
            }
            byte[] disk = TestData.Random((places.Length * Block) - random.Next(Block), seed);
            for (int i = 0; i < places.Length; i++)
            {
                if (random.Next(3) == 0)
                {
                    places[i] = uint.MaxValue - (uint)random.Next(2);
                    disk.AsSpan(i * Block, Math.Min(Block, disk.Length - (i * Block))).Clear();
                }
            }
            await using NbdBackend chain = Chain(Image(disk, places), minimum == 1 ? default : new BlockSize(minimum, 65_536, 65_536));
            await using NextContext image = await chain.OpenAsync();
            Assert.That(image.Info.Size, Is.EqualTo(disk.Length));
            for (int i = 0; i < 20; i++)
            {
                int offset = random.Next(disk.Length);
                int length = random.Next(1, disk.Length - offset + 1);
                Assert.That(
                    (await TestData.ReadAsync(image, offset, length)).AsSpan().SequenceEqual(disk.AsSpan(offset, length)),
                    $"seed {seed}: {length} bytes at {offset}");
            }
            ExtentList extents = await image.ExtentsFullAsync(0, disk.Length, ExtentList.BaseAllocation, None);
            foreach (Extent extent in extents)
            {
                bool isHole = places[extent.Offset / Block] >= 0xFFFF_FFFE;
                Assert.That(extent.Status, Is.EqualTo(isHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data), $"seed {seed}: {extent}");
            }
        }
    }

    private static TestCaseData Lie(NbdError error, string message, Action<byte[]> patch)
        => new TestCaseData(error, message, patch).SetName($"A VDI image is refused: {message}");

    private static IEnumerable<TestCaseData> Lies()
    {
        yield return Lie(NbdError.InvalidArgument, "not a VDI image", i => i[0x40]++);
        yield return Lie(NbdError.InvalidArgument, "version 1.2;", i => U32(i, 0x44, 0x10002));
        yield return Lie(NbdError.InvalidArgument, "type 4, the changes to another image;", i => U32(i, 0x4C, 4));
        yield return Lie(NbdError.InvalidArgument, "type 9;", i => U32(i, 0x4C, 9));
        yield return Lie(NbdError.InvalidArgument, "blocks of 0 bytes", i => U32(i, 0x178, 0));
        yield return Lie(NbdError.InvalidArgument, "blocks of 5000 bytes", i => U32(i, 0x178, 5000));
        yield return Lie(NbdError.InvalidArgument, "blocks of 2147483648 bytes", i => U32(i, 0x178, 1u << 31));
        yield return Lie(NbdError.InvalidArgument, "with 8 bytes before them", i => U32(i, 0x17C, 8));
        yield return Lie(NbdError.IoError, "1 blocks of 4096 bytes for a disk of 8192", i => U32(i, 0x180, 1));
        yield return Lie(NbdError.IoError, "2 blocks of 4096 bytes for a disk of", i => U32(i, 0x174, uint.MaxValue));
        yield return Lie(NbdError.IoError, "a table of 8 bytes at 4294967292", i => U32(i, 0x154, uint.MaxValue - 3));
        yield return Lie(NbdError.IoError, "a table of 8 bytes at 513", i => U32(i, 0x154, 513));
    }

    [TestCaseSource(nameof(Lies))]
    public async Task A_header_is_checked(NbdError error, string message, Action<byte[]> patch)
    {
        byte[] image = Image(new byte[2 * Block], 0, 1);
        patch(image);
        await using NbdBackend chain = Chain(image);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Message, Does.Contain(message));
        Assert.That(e.Error, Is.EqualTo(error));
    }

    [Test]
    public async Task A_block_must_be_in_the_file()
    {
        byte[] disk = TestData.Random(2 * Block);
        byte[] image = Image(disk, 0, 1);
        U32(image, Table + 4, 0xFFFF_FFFD);
        await using NbdBackend chain = Chain(image);
        await using NextContext file = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(file, 0, Block), Is.EqualTo(disk[..Block]));
        NbdException e = TestData.Failure(() => TestData.ReadAsync(file, Block, 1));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(e.Message, Does.Contain("block 4294967293 of the file is at 17592186033152, after its 9216 bytes"));
    }

    [TestCase(0)]
    [TestCase(511)]
    public async Task A_file_that_is_too_small_is_refused(int size)
    {
        var plugin = new TestPlugin(new TestExport { Data = new byte[size] });
        await using NbdBackend chain = NbdBackend.Compose(new VdiPlugin { Chain = NbdBackend.Compose(plugin) });
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("not a VDI image"));
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((1, 1)));
    }

    [Test]
    public async Task Whatever_is_flipped_the_outcome_is_content_or_a_clear_error()
    {
        byte[] original = Image(TestData.Random(20 * Block), [.. Enumerable.Range(0, 20).Select(i => (uint)i)]);
        for (int seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            byte[] image = original[..(random.Next(4) == 0 ? random.Next(original.Length) : original.Length)];
            for (int i = random.Next(1, 5); i > 0 && image.Length > 0; i--)
            {
                image[random.Next(random.Next(2) == 0 ? Math.Min(600, image.Length) : Math.Min(0x190, image.Length))] ^= (byte)(1 << random.Next(8));
            }
            await ImageImages.ExploreAsync(Chain(image), random, $"seed {seed}");
        }
    }
}
