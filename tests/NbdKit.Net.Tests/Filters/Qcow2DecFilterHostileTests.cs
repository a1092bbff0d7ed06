using System.IO.Compression;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using static NbdKit.Tests.Testing.Qcow2Layout;

namespace NbdKit.Tests.Filters;

/// <summary>Images that lie: every lie ends in a clear error or in content, within limits of time and memory.</summary>
public sealed class Qcow2DecFilterHostileTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly byte[] Content = TestData.Random(10_000, 1);

    private static NbdBackend Chain(byte[] image, Qcow2DecFilter? filter = null)
        => NbdBackend.Compose(new DataPlugin { Data = image }, filter ?? new Qcow2DecFilter());

    private static async Task<NbdException> OpenFailureAsync(byte[] image, Qcow2DecFilter? filter = null)
    {
        await using NbdBackend chain = Chain(image, filter);
        return TestData.Failure(async () => await chain.OpenAsync());
    }

    private static async Task<byte[]> ReadAsync(byte[] image, int offset, int length, Qcow2DecFilter? filter = null)
    {
        await using NbdBackend chain = Chain(image, filter);
        await using NextContext disk = await chain.OpenAsync();
        return await TestData.ReadAsync(disk, offset, length);
    }

    private static byte[] Patched(Action<byte[]> patch)
    {
        byte[] image = Image(Content);
        patch(image);
        return image;
    }

    private static TestCaseData Lie(string name, NbdError error, string message, Action<byte[]> patch)
        => new TestCaseData(error, message, patch).SetName("Refused: " + name);

    private static IEnumerable<TestCaseData> Headers()
    {
        yield return Lie("another magic", NbdError.InvalidArgument, "not a qcow2 image", i => i[3]++);
        yield return Lie("version 1", NbdError.InvalidArgument, "version 1;", i => U32(i, 4, 1));
        yield return Lie("version 4", NbdError.InvalidArgument, "version 4;", i => U32(i, 4, 4));
        yield return Lie("small clusters", NbdError.IoError, "clusters of 2^8 bytes", i => U32(i, 20, 8));
        yield return Lie("large clusters", NbdError.IoError, "clusters of 2^22 bytes", i => U32(i, 20, 22));
        yield return Lie("absurd clusters", NbdError.IoError, "clusters of 2^4294967295 bytes", i => U32(i, 20, -1));
        yield return Lie("AES", NbdError.InvalidArgument, "encrypted (AES)", i => U32(i, 32, 1));
        yield return Lie("LUKS", NbdError.InvalidArgument, "encrypted (LUKS)", i => U32(i, 32, 2));
        yield return Lie("a disk beyond 2^63", NbdError.IoError, "a disk of 18446744073709551615 bytes", i => U64(i, 24, -1));
        yield return Lie("a disk that is larger than its table", NbdError.IoError, "an L1 table of 1 entries for a disk of 9223372036854775807", i => U64(i, 24, long.MaxValue));
        yield return Lie("a small L1 table", NbdError.IoError, "an L1 table of 0 entries", i => U32(i, 36, 0));
        yield return Lie("a huge L1 table", NbdError.IoError, "an L1 table of 4294967295 entries", i => U32(i, 36, -1));
        yield return Lie("an L1 table outside", NbdError.IoError, "an L1 table of 1 entries at 1048576", i => U64(i, 40, 1 << 20));
        yield return Lie("an L1 table beyond 2^63", NbdError.IoError, "at 18446744073709551104", i => U64(i, 40, -512));
        yield return Lie("an L1 table between clusters", NbdError.IoError, "an L1 table of 1 entries at 520", i => U64(i, 40, 520));
        yield return Lie("a short header", NbdError.IoError, "its header has 96 bytes", i => U32(i, 100, 96));
        yield return Lie("a long header", NbdError.IoError, "its header has 4294967295 bytes", i => U32(i, 100, -1));
        yield return Lie("subclusters of small clusters", NbdError.IoError, "too small for subclusters", i => U64(i, 72, 16));
        yield return Lie("zstd", NbdError.InvalidArgument, "compression type 1 (zstd)", i => Zstd(i, 1, 8));
        yield return Lie("another compression", NbdError.InvalidArgument, "compression type 77;", i => Zstd(i, 77, 8));
        yield return Lie("a compression that is not a feature", NbdError.IoError, "the compression type is 1,", i => Zstd(i, 1, 0));
        yield return Lie("a feature without a compression", NbdError.IoError, "the compression type is 0,", i => U64(i, 72, 8));
        yield return Lie("corrupt", NbdError.InvalidArgument, "marked as corrupt", i => U64(i, 72, 2));
        yield return Lie("an unknown feature", NbdError.InvalidArgument, "not known: feature bit 5, feature bit 63", i => U64(i, 72, (1L << 63) | 32));
        yield return Lie("an unknown feature with a name", NbdError.InvalidArgument, "not known: 'lunar clusters' (bit 9)", Named);
        yield return Lie("a long extension", NbdError.IoError, "an extension of its header, 12345678, has 4294967295 bytes", i => { U32(i, 104, 0x12345678); U32(i, 108, -1); });
        yield return Lie("a name outside", NbdError.IoError, "the name of its backing file has 10 bytes at 510", i => { U64(i, 8, 510); U32(i, 16, 10); });
        yield return Lie("a name far outside", NbdError.IoError, "at 18446744073709551615", i => { U64(i, 8, -1); U32(i, 16, 10); });
        yield return Lie("a long name", NbdError.IoError, "the name of its backing file has 2000 bytes", i => { U64(i, 8, 200); U32(i, 16, 2000); });
        yield return Lie("many snapshots", NbdError.IoError, "100000 snapshots", i => U32(i, 60, 100_000));
    }

    private static void Zstd(byte[] image, byte type, long features)
    {
        U32(image, 100, 112);
        image[104] = type;
        U64(image, 72, features);
    }

    private static void Named(byte[] image)
    {
        U64(image, 72, 1 << 9);
        byte[] table = new byte[96];
        table[0] = 1;
        table[1] = 9;
        table[49] = 9;
        "lunar clusters"u8.CopyTo(table.AsSpan(50));
        Extension(image, HeaderLength, 0x6803F857, table);
    }

    [TestCaseSource(nameof(Headers))]
    public async Task A_header_is_checked(NbdError error, string message, Action<byte[]> patch)
    {
        NbdException e = await OpenFailureAsync(Patched(patch));
        Assert.That(e.Message, Does.Contain(message));
        Assert.That(e.Error, Is.EqualTo(error));
    }

    [Test]
    public async Task An_image_that_ends_early_is_refused()
    {
        byte[] image = Image(Content);
        foreach (int length in new[] { 0, 1, 71, 72, 103, 511, 512, 519 })
        {
            NbdException e = await OpenFailureAsync(image[..length]);
            Assert.That(e.Message, Does.Contain(length < 72 ? "not a qcow2 image" : length < 104 ? "ends inside its header" : "an L1 table"));
        }
    }

    [Test]
    public async Task The_last_cluster_of_a_file_may_be_short()
    {
        var layout = new Qcow2Layout(Content.Length, 12);
        byte[] image = layout.Image(Content)[..(int)(layout.Data + 9000)];
        Assert.That(await ReadAsync(image, 8192, 1808), Is.EqualTo(Content[8192..9000].Concat(new byte[1000])));
        Assert.That(await ReadAsync(image, 9500, 500), Is.All.Zero, "wholly after its end");
    }

    [Test]
    public async Task A_dirty_image_is_read_and_a_corrupt_one_if_allowed()
    {
        byte[] dirty = Patched(i => U64(i, 72, 1));
        Assert.That(await ReadAsync(dirty, 0, 10_000), Is.EqualTo(Content));
        byte[] corrupt = Patched(i => U64(i, 72, 3));
        Assert.That(await ReadAsync(corrupt, 0, 10_000, new Qcow2DecFilter { AllowCorrupt = true }), Is.EqualTo(Content));
    }

    [TestCase(520L, "an L2 table at 512,", TestName = "An entry whose lower bits are reserved and point to the L1 table")]
    [TestCase(1L << 40, "an L2 table at 1099511627776,", TestName = "An L2 table outside")]
    [TestCase(0x00FF_FFFF_FFFF_FE00, "an L2 table at 72057594037927424,", TestName = "An L2 table far outside")]
    public async Task An_L2_table_must_be_in_the_image(long entry, string message)
    {
        byte[] image = Patched(i => U64(i, 512, entry));
        if (entry == 520)
        {
            // The table is a cluster like any other: it is read as what it is, and its clusters are what its bytes say.
            Assert.That(await ReadAsync(image, 512, 512), Is.All.Zero);
            return;
        }
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(() => TestData.ReadAsync(disk, 0, 1));
        Assert.That(e.Message, Does.Contain(message));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(TestData.Failure(async () => await disk.ExtentsFullAsync(0, 10, ExtentList.BaseAllocation, None)).Message, Is.EqualTo(e.Message));
    }

    [TestCase(9, 1L << 40, "a cluster at 1099511627776, in a file of")]
    [TestCase(12, 8192L + 512, "a cluster at 8704, in a file of")]
    [TestCase(9, (1L << 62) | (1L << 60), "a compressed cluster at 1152921504606846976, in an image of")]
    public async Task A_cluster_must_be_in_the_image(int clusterBits, long entry, string message)
    {
        var layout = new Qcow2Layout(Content.Length, clusterBits);
        byte[] image = layout.Image(Content);
        U64(image, layout.Entry(1), entry);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(() => TestData.ReadAsync(disk, (int)layout.Cluster, 1));
        Assert.That(e.Message, Does.Contain(message));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(await TestData.ReadAsync(disk, 0, (int)layout.Cluster), Is.EqualTo(Content[..(int)layout.Cluster]), "the others are read");
    }

    [TestCase(1L << 32 | 1, TestName = "Parts that are allocated and zeroes at once")]
    [TestCase(1, TestName = "Parts that are allocated without a place")]
    public async Task Subclusters_must_make_sense(long bitmap)
    {
        var layout = new Qcow2Layout(40_000, 14, subclusters: true);
        byte[] image = layout.Image(new byte[40_000]);
        U64(image, layout.Entry(0) + 8, bitmap);
        if (bitmap == 1)
        {
            U64(image, layout.Entry(0), 0);
        }
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, 0, 1)).Message, Does.Contain("subclusters that contradict themselves"));
    }

    /// <summary>An image whose second cluster is compressed, as these bytes.</summary>
    private static byte[] Compressed(byte[] packed, int sectors, int clusterBits = 12)
    {
        var layout = new Qcow2Layout(Content.Length, clusterBits);
        byte[] image = [.. layout.Image(Content), .. packed, .. Enumerable.Repeat((byte)0xCC, 300)];
        U64(image, layout.Entry(1), (1L << 62) | ((sectors - 1L) << (70 - clusterBits)) | (image.LongLength - 300 - packed.Length));
        return image;
    }

    private static byte[] Pack(byte[] data)
    {
        using var packed = new MemoryStream();
        using (var deflate = new DeflateStream(packed, CompressionLevel.SmallestSize))
        {
            deflate.Write(data);
        }
        return packed.ToArray();
    }

    [Test]
    public async Task A_compressed_cluster_is_read_whatever_follows_it()
    {
        byte[] cluster = [.. TestData.Random(1500, 2), .. new byte[4096 - 1500]];
        byte[] packed = Pack(cluster);
        foreach (int sectors in new[] { (packed.Length / 512) + 1, 16 })
        {
            byte[] image = Compressed(packed, sectors);
            Assert.That(await ReadAsync(image, 4096, 4096), Is.EqualTo(cluster));
            Assert.That(await ReadAsync(image, 4000, 4500), Is.EqualTo(Content[4000..4096].Concat(cluster).Concat(Content[8192..8500])));
        }
    }

    [Test]
    public async Task A_compressed_cluster_is_decompressed_once()
    {
        var plugin = new TestPlugin(new TestExport { Data = Compressed(Pack(new byte[4096]), 4) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Qcow2DecFilter());
        await using NextContext disk = await chain.OpenAsync();
        await TestData.ReadAsync(disk, 4096, 10);
        int calls = plugin.Calls.Count;
        await TestData.ReadAsync(disk, 5000, 1000);
        Assert.That(plugin.Calls, Has.Count.EqualTo(calls));
    }

    [TestCase(4095, "has 4095 bytes instead of 4096")]
    [TestCase(0, "has 0 bytes instead of 4096")]
    [TestCase(4097, "has more than 4096 bytes instead of 4096")]
    [TestCase(100_000_000, "has more than 4096 bytes instead of 4096")]
    public async Task A_compressed_cluster_has_exactly_its_size(int size, string message)
    {
        // A stream of nothing is one that ends at once.
        byte[] image = Compressed(size == 0 ? [3, 0] : Pack(new byte[size]), 16);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(() => TestData.ReadAsync(disk, 4096, 1));
        Assert.That(e.Message, Does.Contain(message));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public async Task A_compressed_cluster_that_is_none_or_cut_off_fails()
    {
        foreach (byte[] packed in new[] { Enumerable.Repeat((byte)0xFF, 1000).ToArray(), Pack(TestData.Random(4096, 5))[..1000] })
        {
            await using NbdBackend chain = Chain(Compressed(packed, 2)[..^300]);
            await using NextContext disk = await chain.OpenAsync();
            Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, 4096, 1)).Message, Does.Contain("the compressed cluster at"));
        }
    }

    [Test]
    public async Task Snapshots_that_lie_are_refused()
    {
        var filter = new Qcow2DecFilter { Snapshot = "x" };
        Assert.That((await OpenFailureAsync(Image(Content), filter)).Message, Does.Contain("no snapshot 'x', but none"));
        Assert.That(await Lie(i => U64(i, 64, 1 << 30)), Does.Contain("snapshot 1 is at 1073741824,"));
        Assert.That(await Lie(i => U64(i, 64, -1)), Does.Contain("snapshot 1 is at 18446744073709551615,"));
        Assert.That(await Lie(i => U32(i, i.Length - 1000 + 36, 2000)), Does.Contain("snapshot 1 has 2000 bytes of extra data"));
        Assert.That(await Lie(i => U32(i, i.Length - 1000 + 12, -1)), Does.Contain("snapshot 1 is at"));
        Assert.That(await Lie(i => i[^960] = (byte)'y'), Does.Contain("no snapshot 'x', but "));
        Assert.That(await Lie(i => U32(i, i.Length - 1000 + 8, 0)), Does.Contain("an L1 table of 0 entries"));
        Assert.That(await Lie(_ => { }), Does.Contain("an L1 table of 1 entries at 1000000512"));

        async Task<string> Lie(Action<byte[]> patch)
        {
            byte[] image = [.. Image(Content), .. new byte[1000]];
            int at = image.Length - 1000;
            U32(image, 60, 1);
            U64(image, 64, at);
            U64(image, at, 1_000_000_512);
            U32(image, at + 8, 1);
            U32(image, at + 12, 1);
            image[at + 13] = 1;
            image[at + 12] = 0;
            image[at + 40] = (byte)'x';
            patch(image);
            return (await OpenFailureAsync(image, new Qcow2DecFilter { Snapshot = "x" })).Message;
        }
    }

    [Test]
    public async Task The_whole_of_a_huge_disk_of_nothing_is_one_hole()
    {
        byte[] image = new byte[512 + (32 << 20)];
        new Qcow2Layout(512).Image([]).AsSpan(0, 512).CopyTo(image);
        U64(image, 24, 32_768L * (4 << 20));
        U32(image, 36, 4 << 20);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        var all = new ExtentList(0, disk.Info.Size);
        await disk.ExtentsAsync(0, disk.Info.Size, RequestFlags.None, all, None);
        Assert.That(all.Select(e => e.Status), Is.EqualTo(new[] { ExtentStatus.Hole | ExtentStatus.Zero }));
        Assert.That(await TestData.ReadAsync(disk, disk.Info.Size - 1000, 1000), Is.All.Zero);
    }

    [Test]
    public async Task Whatever_is_flipped_the_outcome_is_content_or_a_clear_error([Range(1, 4)] int kind)
    {
        const int Rounds = 250;
        int seed = kind * 1000;
        (byte[] original, long end) = Sample(kind);
        for (int round = 0; round < Rounds; round++)
        {
            var random = new Random(seed + round);
            byte[] image = [.. original];
            for (int flips = random.Next(1, 6); flips > 0; flips--)
            {
                int at = random.Next(3) == 0 ? random.Next(112) : random.Next((int)end);
                image[at] = random.Next(3) switch { 0 => 0xFF, 1 => (byte)random.Next(256), _ => (byte)(image[at] ^ (1 << random.Next(8))) };
            }
            if (random.Next(8) == 0)
            {
                image = image[..random.Next(image.Length)];
            }
            try
            {
                await UseAsync(image, random).WaitAsync(TimeSpan.FromSeconds(30));
            }
            catch (NbdException e)
            {
                Assert.That(e.Error, Is.AnyOf(NbdError.IoError, NbdError.InvalidArgument), $"seed {seed + round}: {e.Message}");
                Assert.That(e.Message, Is.Not.Empty);
            }
            catch (Exception e)
            {
                throw new AssertionException($"seed {seed + round}: {e}", e);
            }
        }
    }

    private static async Task UseAsync(byte[] image, Random random)
    {
        await using NbdBackend chain = Chain(image, new Qcow2DecFilter
        {
            CacheSize = 20_000,
            Snapshot = random.Next(4) == 0 ? "x" : null,
            OpenFile = (_, _) => NbdBackend.Compose(new DataPlugin { Data = Content }),
        });
        await using NextContext disk = await chain.OpenAsync();
        var failures = new List<NbdException>();
        for (int i = 0; i < 20 && disk.Info.Size > 0; i++)
        {
            long offset = random.NextInt64(disk.Info.Size);
            int length = (int)Math.Min(random.Next(1, 20_000), disk.Info.Size - offset);
            try
            {
                await TestData.ReadAsync(disk, offset, length);
                string context = i % 2 == 0 ? ExtentList.BaseAllocation : ExtentList.AllocationDepth;
                await disk.ExtentsAsync(offset, length, RequestFlags.None, new ExtentList(offset, disk.Info.Size, context), None);
            }
            catch (NbdException e)
            {
                failures.Add(e);
            }
        }
        Assert.That(failures.Select(e => e.Error), Is.All.EqualTo(NbdError.IoError));
    }

    private static (byte[] Image, long End) Sample(int kind)
    {
        byte[] packed = Pack(new byte[4096]);
        Qcow2Layout layout = kind switch
        {
            1 => new Qcow2Layout(Content.Length),
            2 => new Qcow2Layout(Content.Length, 12),
            3 => new Qcow2Layout(100_000, 14, subclusters: true),
            _ => new Qcow2Layout(Content.Length, 9, 2),
        };
        byte[] image = kind == 2 ? Compressed(packed, 2) : layout.Image(new byte[layout.Size]);
        if (kind == 1)
        {
            WithBacking(image, "base", "raw");
        }
        return (image, layout.Data);
    }
}
