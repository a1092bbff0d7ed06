using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Trims, zeroes and extents of a cache that holds writes back.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CacheFilterZeroTests
{
    private const int Block = 4096;
    private const ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly byte[] _expected;

    public CacheFilterZeroTests()
    {
        var data = new byte[16 * Block];
        new Random(2).NextBytes(data);
        _expected = [.. data];
        _plugin = new RecordingPlugin(_calls)
        {
            Data = data,
            // The second half is a hole.
            Extents = (offset, length, list) =>
            {
                list.Add(0, 8 * Block, ExtentStatus.Data);
                list.Add(8 * Block, 8 * Block, Hole);
            },
        };
    }

    [Test]
    public async Task A_zero_goes_below_as_it_is_and_takes_what_was_held_back_with_it()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, 5 * Block, 1);
        RequestFlags flags = RequestFlags.MayTrim | RequestFlags.FastZero;
        await disk.ZeroAsync(Block + 100, 2 * Block, flags, default);
        _expected.AsSpan(Block + 100, 2 * Block).Clear();
        RecordedCall zero = _calls.Calls.Single(call => call.Callback == "zero");
        Assert.That((zero.Offset, zero.Length, zero.Flags), Is.EqualTo((Block + 100, 2 * Block, flags)));
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        _calls.Clear();
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "write").Select(call => (call.Offset, call.Length)).Order(),
            Is.EqualTo(new[] { (0L, 2L * Block), (3L * Block, 2L * Block) }), "the block between is zero below already");
    }

    [Test]
    public async Task A_zero_within_one_block_changes_that_part_only([Values] bool isHeldBack)
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        if (isHeldBack)
        {
            await WriteAsync(disk, 0, Block, 1);
        }
        else
        {
            await disk.CacheAsync(0, Block, default);
        }
        foreach ((int offset, int length) in new[] { (10, 20), (0, 5), (Block - 5, 5), (0, Block) })
        {
            await disk.ZeroAsync(offset, length, RequestFlags.None, default);
            _expected.AsSpan(offset, length).Clear();
            Assert.That(await ReadAll(disk), Is.EqualTo(_expected), $"{offset}+{length}");
        }
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_fast_zero_that_is_declined_changes_nothing()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, 2 * Block, 1);
        await disk.CacheAsync(2 * Block, Block, default);
        _plugin.Script.Fail("zero", error: NbdError.NotSupported);
        Assert.That(
            async () => await disk.ZeroAsync(0, 3 * Block, RequestFlags.FastZero, default),
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.NotSupported));
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        await disk.ZeroAsync(0, 3 * Block, RequestFlags.None, default);
        _expected.AsSpan(0, 3 * Block).Clear();
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected), "other zeroes are written below");
        Assert.That(_plugin.Data[..(3 * Block)].All(b => b == 0), Is.True);
    }

    [Test]
    public async Task A_zero_that_fails_keeps_what_is_held_back_and_nothing_else()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, Block, 1);
        await disk.CacheAsync(Block, Block, default);
        _plugin.Script.Fail("zero", 1);
        Assert.That(async () => await disk.ZeroAsync(0, 2 * Block, RequestFlags.None, default), Throws.TypeOf<NbdException>());
        _plugin.Data[Block] = _expected[Block] ^= 1;
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
    }

    [Test]
    public async Task What_was_trimmed_is_what_is_below_in_the_cache_as_well([Values] CacheMode mode)
    {
        await using NbdBackend chain = Compose(mode);
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(0, 16 * Block, default);
        await WriteAsync(disk, 4 * Block, 4 * Block, 1);
        await disk.TrimAsync(Block + 10, 5 * Block, RequestFlags.None, default);
        _expected.AsSpan(Block + 10, 5 * Block).Clear();
        if (mode != CacheMode.WriteThrough)
        {
            // Nothing is promised of the part of a block that holds other changes back.
            _expected.AsSpan(6 * Block, 10).Fill(1);
        }
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        await disk.CloseAsync();
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task Blocks_held_back_are_data_and_all_others_what_they_are_below()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await Status(disk), Is.EqualTo(new[] { (0L, 8L * Block, ExtentStatus.Data), (8L * Block, 8L * Block, Hole) }));
        await disk.CacheAsync(10 * Block, Block, default);
        await WriteAsync(disk, 12 * Block, 10, 1);
        Assert.That(await Status(disk), Is.EqualTo(new[]
        {
            (0L, 8L * Block, ExtentStatus.Data),
            (8L * Block, 4L * Block, Hole),
            (12L * Block, (long)Block, ExtentStatus.Data),
            (13L * Block, 3L * Block, Hole),
        }));
        var one = new ExtentList((12 * Block) + 5, 16 * Block);
        await disk.ExtentsAsync((12 * Block) + 5, 2 * Block, RequestFlags.RequestOne, one, default);
        Assert.That(one, Is.EqualTo(new[] { new Extent((12 * Block) + 5, Block - 5, ExtentStatus.Data) }));
        await disk.FlushAsync(default);
        Assert.That((await Status(disk)).Length, Is.EqualTo(2), "the layer below is asked again once it has them");
    }

    private async Task WriteAsync(NextContext disk, int offset, int length, byte value)
    {
        var data = new byte[length];
        Array.Fill(data, value);
        await disk.WriteAsync(data, offset, RequestFlags.None, default);
        data.CopyTo(_expected, offset);
    }

    private NbdBackend Compose(CacheMode mode = CacheMode.WriteBack)
        => NbdBackend.Compose(_plugin, new CacheFilter { MinBlockSize = Block, Store = CacheStore.Memory, Mode = mode });

    private static async Task<byte[]> ReadAll(NextContext disk)
    {
        var buffer = new byte[disk.Info.Size];
        await disk.ReadAsync(buffer, 0, default);
        return buffer;
    }

    private static async Task<(long Offset, long Length, ExtentStatus Status)[]> Status(NextContext disk)
        => [.. (await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default)).Select(e => (e.Offset, e.Length, e.Status))];
}
