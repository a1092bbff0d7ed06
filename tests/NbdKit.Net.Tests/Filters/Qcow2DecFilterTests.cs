using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using static NbdKit.Tests.Testing.Qcow2Layout;

namespace NbdKit.Tests.Filters;

public sealed class Qcow2DecFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private static NbdBackend Chain(byte[] image, Qcow2DecFilter? filter = null, BlockSize blockSize = default)
        => NbdBackend.Compose(
            new TestPlugin(new TestExport { Data = image, Configure = info => info with { BlockSize = blockSize } }),
            filter ?? new Qcow2DecFilter());

    private static async Task<string> MapAsync(NextContext disk, string context = ExtentList.BaseAllocation)
    {
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, context, None);
        return string.Join(' ', extents.Select(e => $"{e.Offset}+{e.Length}:{(ulong)e.Status}"));
    }

    [Test]
    public async Task Clusters_of_any_size_are_read([Range(9, 21)] int clusterBits, [Values(2, 3)] int version)
    {
        byte[] content = TestData.Random((3 << clusterBits) + 1234, clusterBits);
        await using NbdBackend chain = Chain(Image(content, clusterBits, version));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(content.Length));
        Assert.That((await TestData.ReadAsync(disk, 0, content.Length)).AsSpan().SequenceEqual(content));
        var random = new Random(clusterBits);
        for (int i = 0; i < 20; i++)
        {
            int offset = random.Next(content.Length);
            int length = random.Next(1, content.Length - offset + 1);
            Assert.That((await TestData.ReadAsync(disk, offset, length)).AsSpan().SequenceEqual(content.AsSpan(offset, length)), $"{length} at {offset}");
        }
        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That(disk.Info.MetaContexts, Is.EqualTo(new[] { ExtentList.BaseAllocation, ExtentList.AllocationDepth }));
    }

    [Test]
    public async Task A_layer_below_with_block_sizes_gets_what_it_takes([Values(512, 4096, 65_536)] int minimum)
    {
        byte[] content = TestData.Random(40_000, 3);
        await using NbdBackend chain = Chain(Image(content), blockSize: new BlockSize(minimum, 65_536, 65_536));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize.Minimum, Is.EqualTo(1));
        Assert.That(await TestData.ReadAsync(disk, 0, content.Length), Is.EqualTo(content));
        Assert.That(await TestData.ReadAsync(disk, 777, 30_000), Is.EqualTo(content[777..30_777]));
    }

    [Test]
    public async Task Neighbouring_clusters_are_one_read_below()
    {
        var plugin = new TestPlugin(new TestExport { Data = Image(TestData.Random(60_000)) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Qcow2DecFilter());
        await using NextContext disk = await chain.OpenAsync();
        await TestData.ReadAsync(disk, 0, 1);
        int before = plugin.Calls.Count();
        await TestData.ReadAsync(disk, 100, 30_000);
        Assert.That(plugin.Calls.Skip(before).Select(c => c.Length), Is.EqualTo(new[] { 30_000L }));
    }

    [Test]
    public async Task Zeroes_holes_and_data_are_told_apart([Values(2, 3)] int version)
    {
        byte[] content = TestData.Random(5 * 512, 1);
        var layout = new Qcow2Layout(content.Length, version: version);
        byte[] image = layout.Image(content);
        U64(image, layout.Entry(0), layout.Data | 1);
        U64(image, layout.Entry(1), 1);
        U64(image, layout.Entry(2), 0);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        // Of version 2, the bit has no meaning.
        Assert.That(
            await MapAsync(disk),
            Is.EqualTo(version == 3 ? "0+512:2 512+1024:3 1536+1024:0" : "0+512:0 512+1024:3 1536+1024:0"));
        Assert.That(
            await MapAsync(disk, ExtentList.AllocationDepth),
            Is.EqualTo(version == 3 ? "0+1024:1 1024+512:0 1536+1024:1" : "0+512:1 512+1024:0 1536+1024:1"));
        byte[] expected = [.. content];
        expected.AsSpan(version == 3 ? 0 : 512, version == 3 ? 1536 : 1024).Clear();
        Assert.That(await TestData.ReadAsync(disk, 0, 2560), Is.EqualTo(expected));
        var sparse = new ExtentList(0, 2560, maximumCount: int.MaxValue);
        await disk.ReadSparseAsync(new byte[2560], 0, sparse, None);
        Assert.That(sparse.Count, Is.EqualTo(3));
    }

    [Test]
    public async Task Parts_of_clusters_are_told_apart()
    {
        byte[] content = TestData.Random(2 * 16_384, 1);
        var layout = new Qcow2Layout(content.Length, 14, subclusters: true);
        byte[] image = layout.Image(content);
        // Of 32 parts of 512 bytes: 2 of data, 2 of zeroes, the rest nothing; then a cluster without a place.
        U64(image, layout.Entry(0) + 8, (0b1100L << 32) | 0b0011);
        U64(image, layout.Entry(1), 0);
        U64(image, layout.Entry(1) + 8, 1L << 63);
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await MapAsync(disk), Is.EqualTo("0+1024:0 1024+1024:2 2048+30720:3"));
        Assert.That(await MapAsync(disk, ExtentList.AllocationDepth), Is.EqualTo("0+2048:1 2048+30208:0 32256+512:1"));
        Assert.That((await TestData.ReadAsync(disk, 0, content.Length))[..1024], Is.EqualTo(content[..1024]));
        Assert.That((await TestData.ReadAsync(disk, 0, content.Length))[1024..], Is.All.Zero);
        Assert.That(await TestData.ReadAsync(disk, 700, 500), Is.EqualTo(content[700..1024].Concat(new byte[176])));
    }

    [Test]
    public async Task A_read_of_what_is_known_allocates_nothing()
    {
        byte[] content = TestData.Random(1 << 20, 1);
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = Image(content, 16) }, new Qcow2DecFilter());
        await using NextContext disk = await chain.OpenAsync();
        byte[] buffer = new byte[200_000];
        long least = long.MaxValue;
        for (int round = 0; round < 5; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                await disk.ReadAsync(buffer, i * 100, None);
            }
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        Assert.That(least, Is.Zero);
        Assert.That(buffer, Is.EqualTo(content[99_900..299_900]));
    }

    [Test]
    public async Task All_connections_to_an_export_share_one_image_that_closes_with_the_last()
    {
        var plugin = new TestPlugin(
            new TestExport("a") { Data = Image(TestData.Random(5000, 1)) }, new TestExport("b") { Data = Image(TestData.Random(6000, 2)) });
        var filter = new Qcow2DecFilter();
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        NextContext first = await chain.OpenAsync("a");
        NextContext second = await chain.OpenAsync("b");
        NextContext third = await chain.OpenAsync("a", readOnly: true);
        Assert.That((plugin.Opened, filter.OpenImages, first.Info.CanMultiConn), Is.EqualTo((2, 2, true)));
        Assert.That(await TestData.ReadAsync(second, 0, 6000), Is.EqualTo(TestData.Random(6000, 2)));
        await first.DisposeAsync();
        Assert.That(await TestData.ReadAsync(third, 0, 5000), Is.EqualTo(TestData.Random(5000, 1)));
        await third.DisposeAsync();
        await second.DisposeAsync();
        Assert.That((plugin.Closed, filter.OpenImages), Is.EqualTo((2, 0)));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("c")).Message, Does.Contain("no export 'c'"));
    }

    [Test]
    public async Task A_disk_of_no_bytes_can_be_opened()
    {
        await using NbdBackend chain = Chain(Image([]));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
    }

    [Test]
    public async Task The_memory_for_tables_is_limited()
    {
        // 64 pages of L2 tables, in a cache of two.
        byte[] content = TestData.Random(64 * 512 * 512, 9);
        var plugin = new TestPlugin(new TestExport { Data = Image(content) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Qcow2DecFilter { CacheSize = 16_384 });
        await using NextContext disk = await chain.OpenAsync();
        var random = new Random(1);
        for (int i = 0; i < 500; i++)
        {
            int offset = random.Next(content.Length - 1000);
            Assert.That((await TestData.ReadAsync(disk, offset, 1000)).AsSpan().SequenceEqual(content.AsSpan(offset, 1000)));
        }
    }

    [Test]
    public async Task Parallel_reads_see_the_same()
    {
        byte[] content = TestData.Random(300_000, 4);
        var plugin = new ModelPlugin(Image(content)) { Yields = true, RecordsCalls = false };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Qcow2DecFilter { CacheSize = 8192 });
        await using NextContext disk = await chain.OpenAsync();
        await Task.WhenAll(Enumerable.Range(0, 16).Select(seed => Task.Run(async () =>
        {
            var random = new Random(seed);
            for (int i = 0; i < 50; i++)
            {
                int offset = random.Next(content.Length - 5000);
                Assert.That((await TestData.ReadAsync(disk, offset, 5000)).AsSpan().SequenceEqual(content.AsSpan(offset, 5000)), $"at {offset}");
            }
        })));
    }

    [Test]
    public void Values_are_checked_where_they_are_set()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new Qcow2DecFilter { CacheSize = -1 });
        Assert.Throws<ArgumentException>(() => _ = new Qcow2DecFilter { Snapshot = "" });
        NbdBackend chain = Chain(Image([1]), new Qcow2DecFilter { BackingDirectory = "/nonexistent/folder" });
        Assert.ThrowsAsync<DirectoryNotFoundException>(async () => await chain.OpenAsync());
    }
}
