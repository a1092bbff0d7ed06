using NbdKit.Buffers;
using NbdKit.Filters;
using NbdKit.Filters.Caching;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Limits, reclaim, and stores that are full or broken.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CacheFilterSpaceTests
{
    private const int Block = 4096;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly FaultyStore _store = new(Block);
    private readonly byte[] _expected;

    public CacheFilterSpaceTests()
    {
        var data = new byte[40 * Block];
        new Random(3).NextBytes(data);
        _plugin = new RecordingPlugin(_calls) { Data = data };
        _expected = [.. data];
    }

    [TearDown]
    public void DisposeStore() => _store.Dispose();

    [Test]
    public async Task The_blocks_that_were_not_used_for_longest_go_first_and_down_to_the_low_threshold()
    {
        using CacheImage image = Image(new CacheLimits(10 * Block, 90, 50));
        await using NbdBackend chain = NbdBackend.Compose(_plugin);
        await using NextContext below = await chain.OpenAsync();
        var user = new CacheUser(below);
        image.Enter(user);
        for (int i = 0; i < 9; i++)
        {
            await image.PrefetchAsync(user, i * Block, 1, default);
        }
        await image.Reclaiming.Soon();
        Assert.That(image.Used, Is.EqualTo(9), "not above the high threshold");
        await image.ReadAsync(user, new byte[1], 0, false, default);
        await image.PrefetchAsync(user, 9 * Block, 1, default);
        await image.Reclaiming.Soon();
        Assert.That(image.Used, Is.EqualTo(5));
        _calls.Clear();
        foreach (int kept in new[] { 0, 6, 7, 8, 9 })
        {
            await image.ReadAsync(user, new byte[1], kept * Block, false, default);
        }
        Assert.That(_calls.Lines, Is.Empty);
    }

    [Test]
    public async Task Changed_blocks_are_written_below_before_they_go()
    {
        using CacheImage image = Image(new CacheLimits(10 * Block, 90, 50));
        await using NbdBackend chain = NbdBackend.Compose(_plugin);
        await using NextContext below = await chain.OpenAsync();
        var user = new CacheUser(below);
        image.Enter(user);
        for (int i = 0; i < 10; i++)
        {
            await image.WriteAsync(user, Filled(Block, (byte)i), i * Block, RequestFlags.None, default);
        }
        await image.Reclaiming.Soon();
        Assert.That(image.Used, Is.LessThanOrEqualTo(5));
        Assert.That(_calls.Count("plugin", "write"), Is.EqualTo(1), "neighbours go in one call");
        for (int i = 0; i < 10; i++)
        {
            var data = new byte[Block];
            await image.ReadAsync(user, data, i * Block, false, default);
            Assert.That(data, Is.EqualTo(Filled(Block, (byte)i)), $"block {i}");
        }
        Task leaving = image.LeaveAsync(user, default).AsTask();
        await leaving.Soon();
    }

    [Test]
    public async Task Reclaim_that_cannot_write_below_loses_nothing_and_new_data_go_below_or_fail()
    {
        _plugin.Script.Fail("write");
        await using NbdBackend chain = Compose(5 * Block);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, 5 * Block, 1);
        Assert.That(async () => await disk.WriteAsync(Filled(Block, 2), 6 * Block, RequestFlags.None, default), Throws.TypeOf<NbdException>());
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        _plugin.Script.Succeed("write");
        await WriteAsync(disk, 6 * Block, Block, 2);
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_request_larger_than_the_cache_goes_below_for_the_rest()
    {
        await using NbdBackend chain = Compose(3 * Block);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 100, 20 * Block, 1);
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        Assert.That(_store.Blocks, Is.LessThanOrEqualTo(3));
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_full_disk_under_the_cache_reclaims_and_nobody_notices()
    {
        _store.Capacity = 4;
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 20; i++)
        {
            await WriteAsync(disk, i * Block, Block - 1, (byte)i);
            await disk.CacheAsync((39 - i) * Block, Block, default);
        }
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        Assert.That(_store.Blocks, Is.LessThanOrEqualTo(4));
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_store_that_cannot_be_written_makes_requests_go_below([Values] CacheMode mode)
    {
        await using NbdBackend chain = Compose(mode: mode);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, 2 * Block, 1);
        await disk.CacheAsync(2 * Block, 2 * Block, default);
        _store.FailsWrites = true;
        await WriteAsync(disk, 100, 10, 2);
        await WriteAsync(disk, Block, Block, 3);
        await WriteAsync(disk, (2 * Block) + 5, Block, 4);
        await WriteAsync(disk, 10 * Block, 2 * Block, 5);
        await WriteAsync(disk, (20 * Block) + 7, 2 * Block, 6);
        await disk.ZeroAsync(5, 10, RequestFlags.None, default);
        _expected.AsSpan(5, 10).Clear();
        await disk.CacheAsync(30 * Block, Block, default);
        Assert.That(await ReadAll(disk), Is.EqualTo(_expected));
        await disk.CloseAsync();
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_store_that_cannot_be_read_fails_only_what_is_nowhere_else()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(0, Block, default);
        await WriteAsync(disk, Block, Block, 1);
        _store.FailsReads = true;
        var data = new byte[Block];
        await disk.ReadAsync(data, 0, default);
        Assert.That(data, Is.EqualTo(_expected[..Block]));
        Assert.That(async () => await disk.ReadAsync(data, Block, default), Throws.InstanceOf<IOException>());
        Assert.That(async () => await disk.FlushAsync(default), Throws.InstanceOf<IOException>());
        _store.FailsReads = false;
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
    }

    [Test]
    public async Task A_connection_does_not_end_under_the_reclaim_that_works_with_it()
    {
        var gate = new Gate();
        _plugin.Script.OnCall = async (call, token) =>
        {
            if (call.Callback == "write")
            {
                await gate.PassAsync(token);
            }
        };
        await using NbdBackend chain = Compose(10 * Block);
        NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 0, 10 * Block, 1);
        await gate.ArrivedAsync();
        Task closing = disk.CloseAsync().AsTask();
        Assert.That(_calls.Count("plugin", "close"), Is.Zero);
        gate.Open();
        await closing.Soon();
        Assert.That(_plugin.Data, Is.EqualTo(_expected));
        _calls.AssertBalanced();
    }

    private CacheImage Image(CacheLimits limits)
        => new(_expected.Length, Block, new MemoryOverlayStore(Block), CacheMode.WriteBack, limits);

    private NbdBackend Compose(long? maxSize = null, CacheMode mode = CacheMode.WriteBack)
        => NbdBackend.Compose(_plugin, new CacheFilter
        {
            MinBlockSize = Block,
            MaxSize = maxSize,
            Mode = mode,
            Store = CacheStore.Memory,
            StoreFactory = () => _store,
        });

    private async Task WriteAsync(NextContext disk, int offset, int length, byte value)
    {
        await disk.WriteAsync(Filled(length, value), offset, RequestFlags.None, default);
        _expected.AsSpan(offset, length).Fill(value);
    }

    private static byte[] Filled(int length, byte value)
    {
        var data = new byte[length];
        Array.Fill(data, value);
        return data;
    }

    private static async Task<byte[]> ReadAll(NextContext disk)
    {
        var buffer = new byte[disk.Info.Size];
        await disk.ReadAsync(buffer, 0, default);
        return buffer;
    }
}
