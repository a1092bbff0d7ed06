using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Trims, zeroes, extents, and what reads and prefetches copy.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CowFilterZeroTests
{
    private const int Block = 4096;
    private const ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;

    public CowFilterZeroTests()
    {
        var data = new byte[16 * Block];
        new Random(2).NextBytes(data);
        _plugin = new RecordingPlugin(_calls) { Data = data };
    }

    [Test]
    public async Task A_trim_makes_holes_of_whole_blocks_and_zeroes_of_parts([Values] CowStore store)
    {
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Store = store });
        await using NextContext disk = await chain.OpenAsync();
        await disk.TrimAsync(Block + 100, 3 * Block, RequestFlags.Fua, default);
        byte[] expected = [.. _plugin.Data];
        expected.AsSpan(Block + 100, 3 * Block).Clear();
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
        Assert.That(await Status(disk), Is.EqualTo(new[]
        {
            (0L, 2L * Block, ExtentStatus.Data),
            (2L * Block, 2L * Block, Hole),
            (4L * Block, 12L * Block, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task A_trim_within_a_block_zeroes_that_part_only()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        byte[] expected = [.. _plugin.Data];
        foreach ((int offset, int length) in new[] { (10, 20), (Block, 20), ((3 * Block) - 20, 20), (10, 5) })
        {
            await disk.TrimAsync(offset, length, RequestFlags.None, default);
            expected.AsSpan(offset, length).Clear();
            Assert.That(await ReadAll(disk), Is.EqualTo(expected), $"{offset}+{length}");
        }
    }

    [Test]
    public async Task A_write_to_a_part_of_a_trimmed_block_is_surrounded_by_zeroes([Values] CowStore store)
    {
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Store = store });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Enumerable.Repeat((byte)9, 2 * Block).ToArray(), 0, RequestFlags.None, default);
        await disk.TrimAsync(0, 2 * Block, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 100, RequestFlags.None, default);
        var expected = new byte[2 * Block];
        new byte[] { 1, 2, 3 }.CopyTo(expected, 100);
        Assert.That((await ReadAll(disk))[..(2 * Block)], Is.EqualTo(expected));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1), "only the test's own read goes below");
    }

    [Test]
    public async Task Zeroes_that_may_trim_make_holes_and_those_that_may_not_make_data()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 2 * Block, RequestFlags.MayTrim, default);
        await disk.ZeroAsync(2 * Block, (2 * Block) + 5, RequestFlags.Fua, default);
        _plugin.Extents = (offset, length, list) => list.Add(offset, length, ExtentStatus.Hole);
        Assert.That(await Status(disk), Is.EqualTo(new[]
        {
            (0L, 2L * Block, Hole),
            (2L * Block, 3L * Block, ExtentStatus.Data),
            (5L * Block, 11L * Block, ExtentStatus.Hole),
        }));
        byte[] expected = [.. _plugin.Data];
        expected.AsSpan(0, (4 * Block) + 5).Clear();
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
    }

    [Test]
    public async Task A_long_zero_is_written_in_pieces([Values(4096, 65_536, 4 << 20)] int blockSize)
    {
        var plugin = new RecordingPlugin(_calls) { Data = new byte[(9 << 20) + 10] };
        Array.Fill(plugin.Data, (byte)7);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new CowFilter { BlockSize = blockSize, Store = CowStore.Memory });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(3, disk.Info.Size - 5, RequestFlags.None, default);
        var buffer = new byte[disk.Info.Size];
        await disk.ReadAsync(buffer, 0, default);
        Assert.That(buffer.AsSpan().IndexOfAnyExcept((byte)7), Is.EqualTo(3));
        Assert.That(buffer.AsSpan(3, buffer.Length - 5).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
        Assert.That(buffer[^2..], Is.EqualTo(new byte[] { 7, 7 }));
    }

    [Test]
    public async Task A_fast_zero_is_done_where_it_is_fast_and_else_refused_unchanged()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        const RequestFlags Fast = RequestFlags.FastZero | RequestFlags.MayTrim;
        await disk.ZeroAsync(0, 2 * Block, Fast, default);
        Assert.That((await Status(disk))[0], Is.EqualTo((0L, 2L * Block, Hole)));
        await disk.ZeroAsync(10, 20, Fast, default);
        await disk.ZeroAsync(10, (3 * Block) - 10, Fast, default);

        byte[] before = await ReadAll(disk);
        await AssertRefused(0, Block, RequestFlags.FastZero);
        await AssertRefused(10 * Block, Block + 1, Fast);
        await AssertRefused((10 * Block) + 1, Block, Fast);
        await AssertRefused((10 * Block) + 1, 1, Fast);
        Assert.That(await ReadAll(disk), Is.EqualTo(before));

        await disk.WriteAsync(new byte[] { 1 }, 10 * Block, RequestFlags.None, default);
        await AssertRefused((10 * Block) + 1, 1, Fast);
        await disk.ZeroAsync((10 * Block) + 1, (2 * Block) - 1, Fast, default);
        Assert.That(_calls.Calls.Where(call => call.Callback == "read").Select(call => call.Length), Has.None.EqualTo(1));

        async Task AssertRefused(long offset, long length, RequestFlags flags)
        {
            try
            {
                await disk.ZeroAsync(offset, length, flags, default);
                Assert.Fail($"{length} at {offset} was not refused");
            }
            catch (NbdException e)
            {
                Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
            }
        }
    }

    [Test]
    public async Task Extents_ask_below_only_for_what_is_not_in_the_overlay_and_merge_neighbours()
    {
        _plugin.Extents = (offset, length, list) =>
        {
            // Every answer is short, and below all is a hole from block 8 on.
            long stop = Math.Min(offset + Block, offset + length);
            list.Add(offset, stop - offset, offset >= 8 * Block ? Hole : ExtentStatus.Data);
        };
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[2 * Block], 2 * Block, RequestFlags.None, default);
        await disk.TrimAsync(6 * Block, 2 * Block, RequestFlags.None, default);
        _calls.Clear();
        Assert.That(await Status(disk), Is.EqualTo(new[]
        {
            (0L, 6L * Block, ExtentStatus.Data),
            (6L * Block, 10L * Block, Hole),
        }));
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "extents").Select(call => call.Offset / Block),
            Is.EqualTo(new long[] { 0, 1, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15 }));
    }

    [Test]
    public async Task One_extent_takes_one_question_below_at_most()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[Block], 2 * Block, RequestFlags.None, default);
        var below = new ExtentList(100, disk.Info.Size);
        await disk.ExtentsAsync(100, 10 * Block, RequestFlags.RequestOne, below, default);
        Assert.That(below, Is.EqualTo(new[] { new Extent(100, (2 * Block) - 100, ExtentStatus.Data) }));
        Assert.That(_calls.Calls.Single(call => call.Callback == "extents").Flags, Is.EqualTo(RequestFlags.RequestOne));
        var stored = new ExtentList((2 * Block) + 1, disk.Info.Size);
        await disk.ExtentsAsync((2 * Block) + 1, 10 * Block, RequestFlags.RequestOne, stored, default);
        Assert.That(stored, Is.EqualTo(new[] { new Extent((2 * Block) + 1, Block - 1, ExtentStatus.Data) }));
        Assert.That(_calls.Count("plugin", "extents"), Is.EqualTo(1));
    }

    [Test]
    public async Task Reads_copy_if_they_are_told_to([Values] CowStore store)
    {
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Store = store, OnRead = true });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await Read(disk, Block + 5, 3 * Block), Is.EqualTo(_plugin.Data[(Block + 5)..((4 * Block) + 5)]));
        _calls.Clear();
        Assert.That(await Read(disk, Block, 4 * Block), Is.EqualTo(_plugin.Data[Block..(5 * Block)]));
        Assert.That(_calls.Lines, Is.Empty);
        Assert.That(await ReadAll(disk), Is.EqualTo(_plugin.Data));
    }

    [Test]
    public async Task Reads_copy_only_while_the_file_exists()
    {
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, $"cow-{Guid.NewGuid():N}");
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Store = CowStore.Memory, OnReadFile = path });
        await using NextContext disk = await chain.OpenAsync();
        await Read(disk, 0, 10);
        await Read(disk, 0, 10);
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(2));
        await File.WriteAllTextAsync(path, "");
        try
        {
            await Read(disk, 0, 10);
        }
        finally
        {
            File.Delete(path);
        }
        await Read(disk, 0, 10);
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(3));
    }

    [Test]
    public async Task A_copy_that_fails_does_not_fail_the_read()
    {
        string directory = Directory.CreateTempSubdirectory("cow").FullName;
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Directory = directory, OnRead = true });
        await using NextContext disk = await chain.OpenAsync();
        Directory.Delete(directory);
        Assert.That(await ReadAll(disk), Is.EqualTo(_plugin.Data));
        _plugin.Script.Fail("read");
        Assert.That(async () => await ReadAll(disk), Throws.TypeOf<NbdException>());
    }

    [Test]
    public async Task Prefetches_copy_or_are_passed_on([Values] bool onCache)
    {
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = Block, Store = CowStore.Memory, OnCache = onCache });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[Block], Block, RequestFlags.None, default);
        await disk.CacheAsync(10, 3 * Block, default);
        Assert.That(
            _calls.Calls.Where(call => call.Callback == (onCache ? "read" : "cache")).Select(call => (call.Offset, call.Length)),
            Is.EqualTo(onCache ? new[] { (0L, (long)Block), (2L * Block, 2L * Block) } : new[] { (10L, Block - 10L), (2L * Block, Block + 10L) }));
        _calls.Clear();
        await Read(disk, 0, 4 * Block);
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(onCache ? 0 : 2));
    }

    [Test]
    public async Task Prefetching_is_offered_where_it_does_something([Values] bool onCache, [Values] Support below)
    {
        _plugin.Info = (_, info) => info with { CanCache = below };
        await using NbdBackend chain = Compose(new CowFilter { Store = CowStore.Memory, OnCache = onCache });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanCache, Is.EqualTo(onCache || below != Support.None ? Support.Native : Support.None));
    }

    [Test]
    public async Task The_largest_disk_works_at_its_end_and_as_a_whole([Values] CowStore store, [Values(4096, 65_536)] int blockSize)
    {
        const long Size = long.MaxValue;
        _plugin.Info = (_, info) => info with { Size = Size };
        _plugin.Script.Fail("read", _ => new IOException("nothing is to be read here"));
        await using NbdBackend chain = Compose(new CowFilter { BlockSize = blockSize, Store = store });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, Size, RequestFlags.MayTrim | RequestFlags.FastZero, default);
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, Size - 3, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 4 }, 1L << 60, RequestFlags.None, default);
        Assert.That(await Read(disk, Size - 5, 5), Is.EqualTo(new byte[] { 0, 0, 1, 2, 3 }));
        Assert.That(await Read(disk, 1L << 60, 2), Is.EqualTo(new byte[] { 4, 0 }));
        long last = Size & ~(blockSize - 1L);
        Assert.That(await Status(disk), Is.EqualTo(new[]
        {
            (0L, 1L << 60, Hole),
            (1L << 60, blockSize, ExtentStatus.Data),
            ((1L << 60) + blockSize, last - (1L << 60) - blockSize, Hole),
            (last, Size - last, ExtentStatus.Data),
        }));
        await disk.TrimAsync(0, Size, RequestFlags.None, default);
        Assert.That(await Status(disk), Is.EqualTo(new[] { (0L, Size, Hole) }));
    }

    private NbdBackend Compose(CowFilter? filter = null)
        => NbdBackend.Compose(_plugin, filter ?? new CowFilter { BlockSize = Block, Store = CowStore.Memory });

    private static async Task<byte[]> Read(NextContext disk, long offset, int length)
    {
        var buffer = new byte[length];
        await disk.ReadAsync(buffer, offset, default);
        return buffer;
    }

    private static Task<byte[]> ReadAll(NextContext disk) => Read(disk, 0, (int)disk.Info.Size);

    private static async Task<(long Offset, long Length, ExtentStatus Status)[]> Status(NextContext disk)
        => [.. (await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default)).Select(e => (e.Offset, e.Length, e.Status))];
}
