using System.Buffers.Binary;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class VhdPluginTests
{
    private const int Block = 4096;
    private const int Header = 512;
    private const int Table = 1536;
    private const int Data = 2560;
    private const int Stride = 512 + Block;
    private static readonly CancellationToken None = CancellationToken.None;

    /// <summary>A dynamic image whose blocks are in the places that the table says, or nowhere.</summary>
    private static byte[] Image(byte[] disk, params int?[] table)
    {
        byte[] image = new byte[Data + (table.Max(place => place + 1 ?? 0) * Stride) + 512];
        "cxsparse"u8.CopyTo(image.AsSpan(Header));
        U64(image, Header + 16, Table);
        U32(image, Header + 28, (uint)table.Length);
        U32(image, Header + 32, Block);
        Sum(image, Header, 1024, 36);
        image.AsSpan(Table, 1024).Fill(0xFF);
        for (int i = 0; i < table.Length; i++)
        {
            if (table[i] is { } place)
            {
                int at = Data + (place * Stride);
                U32(image, Table + (i * 4), (uint)at / 512);
                image.AsSpan(at, 512).Fill(0xFF);
                disk.AsSpan(i * Block, Math.Min(Block, disk.Length - (i * Block))).CopyTo(image.AsSpan(at + 512));
            }
        }
        Footer(image, 0, 3, disk.Length);
        Footer(image, image.Length - 512, 3, disk.Length);
        return image;
    }

    private static void Footer(byte[] image, int at, uint type, long size, string creator = "win ", uint geometry = 0)
    {
        "conectix"u8.CopyTo(image.AsSpan(at));
        U64(image, at + 16, type is 3 or 4 ? Header : -1);
        System.Text.Encoding.ASCII.GetBytes(creator, image.AsSpan(at + 28));
        U64(image, at + 48, size);
        U32(image, at + 56, geometry);
        U32(image, at + 60, type);
        Sum(image, at, 512, 64);
    }

    private static void Sum(byte[] image, int at, int length, int checksum)
    {
        U32(image, at + checksum, 0);
        uint sum = 0;
        foreach (byte b in image.AsSpan(at, length))
        {
            sum += b;
        }
        U32(image, at + checksum, ~sum);
    }

    private static void U32(byte[] image, int at, uint value) => BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(at), value);

    private static void U64(byte[] image, int at, long value) => BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(at), value);

    private static NbdBackend Chain(byte[] image)
        => NbdBackend.Compose(new VhdPlugin { Chain = NbdBackend.Compose(new TestPlugin(new TestExport { Data = image })) });

    [Test]
    public async Task Any_table_reads_like_its_model()
    {
        for (int seed = 1; seed <= 50; seed++)
        {
            var random = new Random(seed);
            int?[] places = [.. Enumerable.Range(0, random.Next(1, 100))];
            random.Shuffle(places);
            byte[] disk = TestData.Random((places.Length * Block) - random.Next(Block), seed);
            for (int i = 0; i < places.Length; i++)
            {
                if (random.Next(3) == 0)
                {
                    places[i] = null;
                    disk.AsSpan(i * Block, Math.Min(Block, disk.Length - (i * Block))).Clear();
                }
            }
            await using NbdBackend chain = Chain(Image(disk, places));
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
                bool isHole = places[extent.Offset / Block] is null;
                Assert.That(extent.Status, Is.EqualTo(isHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data), $"seed {seed}: {extent}");
            }
        }
    }

    [TestCase("win ", 1_000_000)]
    [TestCase("vpc ", 2 * 3 * 4 * 512)]
    [TestCase("qemu", 2 * 3 * 4 * 512)]
    [TestCase("qem2", 1_000_000)]
    [TestCase("vbox", 1_000_000)]
    public async Task The_size_is_the_one_that_the_creator_means(string creator, int expected)
    {
        byte[] image = new byte[1_000_000 + 512];
        Footer(image, 1_000_000, 2, 1_000_000, creator, (2 << 16) | (3 << 8) | 4);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(expected));
    }

    [Test]
    public async Task The_copy_of_the_footer_is_used_if_the_footer_is_damaged()
    {
        byte[] disk = TestData.Random(3 * Block);
        byte[] image = Image(disk, 0, 1, 2);
        foreach (int keep in new[] { image.Length, image.Length - 512, image.Length - 100 })
        {
            byte[] cut = image[..keep];
            cut[^10] ^= 1;
            await using NbdBackend chain = Chain(cut);
            await using NextContext file = await chain.OpenAsync();
            Assert.That((await TestData.ReadAsync(file, 0, 2 * Block)), Is.EqualTo(disk[..(2 * Block)]));
        }
    }

    private static TestCaseData Lie(NbdError error, string message, Action<byte[]> patch)
        => new TestCaseData(error, message, patch).SetName($"A VHD image is refused: {message}");

    private static IEnumerable<TestCaseData> Lies()
    {
        yield return Lie(NbdError.InvalidArgument, "not a VHD image", i => { i[0]++; i[^512]++; });
        yield return Lie(NbdError.IoError, "its footer has the wrong checksum", i => { i[70]++; i[^442]++; });
        yield return Lie(NbdError.InvalidArgument, "only the changes to its parent '', which was not given", i => Footer(i, i.Length - 512, 4, 100));
        yield return Lie(NbdError.InvalidArgument, "type 7;", i => Footer(i, i.Length - 512, 7, 100));
        yield return Lie(NbdError.IoError, "a disk of 18446744073709551615 bytes", i => Footer(i, i.Length - 512, 3, -1));
        yield return Lie(NbdError.IoError, "a disk of 1000000 bytes, in a file of", i => Footer(i, i.Length - 512, 2, 1_000_000));
        yield return Lie(NbdError.IoError, "a table of 2 blocks for a disk of 1000000 bytes, which needs 245", i => Footer(i, i.Length - 512, 3, 1_000_000));
        yield return Lie(NbdError.IoError, "the header of the dynamic disk is none", i => i[Header + 30]++);
        yield return Lie(NbdError.IoError, "blocks of 0 bytes", i => Head(i, 32, 0));
        yield return Lie(NbdError.IoError, "blocks of 2147483648 bytes", i => Head(i, 32, 1u << 31));
        yield return Lie(NbdError.IoError, "a table of 2 blocks at 4294967296", i => Head(i, 19, 1 << 24));
        yield return Lie(NbdError.IoError, "its header is at", i => { U64(i, i.Length - 512 + 16, -1); Sum(i, i.Length - 512, 512, 64); });
    }

    private static void Head(byte[] image, int at, uint value)
    {
        if (at == 19)
        {
            U64(image, Header + 16, 1L << 32);
        }
        else
        {
            U32(image, Header + at, value);
        }
        Sum(image, Header, 1024, 36);
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
        byte[] image = Image(new byte[2 * Block], 0, 1);
        U32(image, Table + 4, 0xFFFF_FFFE);
        await using NbdBackend chain = Chain(image);
        await using NextContext file = await chain.OpenAsync();
        NbdException e = TestData.Failure(() => TestData.ReadAsync(file, Block, 1));
        Assert.That(e.Message, Does.Contain("a block at 2199023255040, in a file of"));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public async Task Whatever_is_flipped_the_outcome_is_content_or_a_clear_error()
    {
        byte[] original = Image(TestData.Random(20 * Block), [.. Enumerable.Range(0, 20)]);
        for (int seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            byte[] image = original[..(random.Next(4) == 0 ? random.Next(original.Length) : original.Length)];
            for (int i = random.Next(1, 5); i > 0 && image.Length > 0; i--)
            {
                image[random.Next(Math.Min(Data, image.Length))] ^= (byte)(1 << random.Next(8));
            }
            if (random.Next(2) == 0 && image.Length == original.Length)
            {
                // What has a wrong checksum is refused: let some flips through.
                Sum(image, Header, 1024, 36);
                Sum(image, 0, 512, 64);
                image[^10]++;
            }
            await ImageImages.ExploreAsync(Chain(image), random, $"seed {seed}");
        }
    }
}
