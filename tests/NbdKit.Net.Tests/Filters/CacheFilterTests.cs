using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CacheFilterTests
{
    private const int Block = 4096;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly byte[] _before;

    public CacheFilterTests()
    {
        var data = new byte[(16 * Block) + 100];
        new Random(1).NextBytes(data);
        _plugin = new RecordingPlugin(_calls) { Data = data };
        _before = [.. data];
    }

    [Test]
    public async Task Written_back_data_are_seen_above_at_once_and_below_after_a_flush([Values] CacheStore store)
    {
        await using NbdBackend chain = Compose(store: store);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(10, 1), 5, RequestFlags.None, default);
        await disk.WriteAsync(Filled(3 * Block, 2), Block - 7, RequestFlags.None, default);
        await disk.WriteAsync(Filled(1, 3), _before.Length - 1, RequestFlags.None, default);
        byte[] expected = [.. _before];
        Filled(10, 1).CopyTo(expected, 5);
        Filled(3 * Block, 2).CopyTo(expected, Block - 7);
        expected[^1] = 3;
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
        Assert.That(_plugin.Data, Is.EqualTo(_before));

        _calls.Clear();
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data, Is.EqualTo(expected));
        Assert.That(_calls.Calls[^1].Callback, Is.EqualTo("flush"));
        Assert.That(
            Ranges("write").Order(), Is.EqualTo(new[] { (0L, 4L * Block), (16L * Block, 100L) }), "neighbours go in one call");
        _calls.Clear();
        await disk.FlushAsync(default);
        Assert.That(_calls.Calls.Select(call => call.Callback), Is.EqualTo(new[] { "flush" }));
    }

    [Test]
    public async Task Written_through_data_are_below_before_the_write_completes_and_cached_where_they_are_whole_blocks()
    {
        await using NbdBackend chain = Compose(CacheMode.WriteThrough);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(2 * Block, 1), Block - 5, RequestFlags.None, default);
        byte[] expected = [.. _before];
        Filled(2 * Block, 1).CopyTo(expected, Block - 5);
        Assert.That(_plugin.Data, Is.EqualTo(expected));
        Assert.That(_calls.Count("plugin", "read"), Is.Zero);
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
        Assert.That(Ranges("read"), Is.EqualTo(new[] { (0L, (long)Block), (2L * Block, _before.Length - (2L * Block)) }));
        await disk.WriteAsync(Filled(7, 2), Block + 3, RequestFlags.Fua, default);
        Assert.That(await Read(disk, Block, 20), Is.EqualTo(_plugin.Data[Block..(Block + 20)]));
        Assert.That(_calls.Calls.Last(call => call.Callback == "write").Flags, Is.EqualTo(RequestFlags.Fua));
    }

    [Test]
    public async Task Unsafe_ignores_flushes_and_FUA_and_writes_everything_at_the_end()
    {
        await using NbdBackend chain = Compose(CacheMode.Unsafe);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.WriteAsync(Filled(Block, 1), 0, RequestFlags.Fua, default);
            await disk.FlushAsync(default);
            Assert.That(_plugin.Data, Is.EqualTo(_before));
            await disk.ZeroAsync(Block, Block, RequestFlags.Fua, default);
            Assert.That(_calls.Calls.Single(call => call.Callback == "zero").Flags, Is.EqualTo(RequestFlags.None));
        }
        Assert.That(_plugin.Data[..Block], Is.EqualTo(Filled(Block, 1)));
        Assert.That(_calls.Calls.Last(call => call.Callback is "write" or "flush").Callback, Is.EqualTo("flush"));
    }

    [Test]
    public async Task FUA_writes_its_data_below_and_leaves_the_rest_of_the_block_held_back()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        await disk.WriteAsync(Filled(10, 2), 20, RequestFlags.Fua, default);
        Assert.That(_plugin.Data[20..30], Is.EqualTo(Filled(10, 2)));
        Assert.That(_plugin.Data[..10], Is.EqualTo(_before[..10]));
        RecordedCall write = _calls.Calls.Single(call => call.Callback == "write");
        Assert.That((write.Offset, write.Length, write.Flags), Is.EqualTo((20, 10, RequestFlags.Fua)));
        Assert.That(await Read(disk, 0, 30), Is.EqualTo(Filled(10, 1).Concat(_before[10..20]).Concat(Filled(10, 2))));
        await disk.FlushAsync(default);
        Assert.That(_plugin.Data[..10], Is.EqualTo(Filled(10, 1)));
    }

    [Test]
    public async Task FUA_is_made_of_a_flush_and_flushes_of_FUA_where_the_layer_below_has_only_the_other()
    {
        _plugin.Info = (_, info) => info with { CanFua = Support.None };
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            await disk.WriteAsync(Filled(10, 1), 0, RequestFlags.Fua, default);
            Assert.That(_calls.Calls.TakeLast(2).Select(call => call.Callback), Is.EqualTo(new[] { "write", "flush" }));
            await disk.TrimAsync(0, Block, RequestFlags.Fua, default);
            Assert.That(_calls.Calls.TakeLast(2).Select(call => call.Callback), Is.EqualTo(new[] { "trim", "flush" }));
        }
        _plugin.Info = (_, info) => info with { CanFlush = false };
        await using NbdBackend other = NbdBackend.Compose(
            new RecordingPlugin(_calls) { Data = _plugin.Data, Info = _plugin.Info }, Filter());
        await using NextContext second = await other.OpenAsync();
        await second.WriteAsync(Filled(10, 2), 0, RequestFlags.None, default);
        _calls.Clear();
        await second.FlushAsync(default);
        await second.ZeroAsync(0, Block, RequestFlags.None, default);
        Assert.That(_calls.Calls.Select(call => (call.Callback, call.Flags)), Is.EqualTo(new[]
        {
            ("write", RequestFlags.Fua), ("zero", RequestFlags.Fua),
        }));
    }

    [Test]
    public async Task What_the_cache_can_do_follows_from_its_mode_and_the_layer_below()
    {
        _plugin.Info = (_, info) => new NbdExportInfo { Size = info.Size, CanWrite = true };
        foreach (CacheMode mode in Enum.GetValues<CacheMode>())
        {
            await using NbdBackend chain = NbdBackend.Compose(
                new RecordingPlugin(_calls) { Data = _plugin.Data, Info = _plugin.Info }, Filter(mode));
            await using NextContext disk = await chain.OpenAsync();
            NbdExportInfo info = disk.Info;
            bool back = mode != CacheMode.WriteThrough;
            Assert.That((info.CanFlush, info.CanMultiConn, info.CanCache), Is.EqualTo((back, back, Support.Native)), $"{mode}");
            Assert.That(info.CanFua, Is.EqualTo(mode == CacheMode.Unsafe ? Support.Native : Support.None), $"{mode}");
            Assert.That((info.CanTrim, info.CanZero, info.CanExtents), Is.EqualTo((false, Support.Emulate, false)), $"{mode}");
            Assert.That(info.BlockSize, Is.EqualTo(new BlockSize(1, Block)), $"{mode}");
            await disk.ZeroAsync(10, 10, RequestFlags.None, default);
            Assert.That(_plugin.Data[10..20].All(b => b == 0), Is.EqualTo(!back), $"{mode}");
            _before.CopyTo(_plugin.Data, 0);
        }
    }

    [Test]
    public async Task A_failed_write_below_keeps_its_block_and_not_the_others_and_the_flush_below_runs_all_the_same()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 16; i += 2)
        {
            await disk.WriteAsync(Filled(Block, 1), i * Block, RequestFlags.None, default);
        }
        _plugin.Script.Fail("write", call => call.Offset == 4 * Block ? new NbdException(NbdError.NoSpace, "full") : null);
        _calls.Clear();
        Assert.That(async () => await disk.FlushAsync(default),
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.NoSpace));
        Assert.That(_calls.Count("plugin", "write"), Is.EqualTo(8));
        Assert.That(_calls.Calls[^1].Callback, Is.EqualTo("flush"));
        Assert.That(await Read(disk, 4 * Block, Block), Is.EqualTo(Filled(Block, 1)));
        _plugin.Script.Succeed("write");
        _calls.Clear();
        await disk.FlushAsync(default);
        Assert.That(Ranges("write"), Is.EqualTo(new[] { (4L * Block, (long)Block) }));
        Assert.That(_plugin.Data[4 * Block], Is.EqualTo(1));
    }

    [Test]
    public async Task A_failed_flush_below_is_reported_and_a_later_one_tried_again()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(Block, 1), 0, RequestFlags.None, default);
        _plugin.Script.Fail("flush", 1);
        Assert.That(async () => await disk.FlushAsync(default), Throws.TypeOf<NbdException>());
        await disk.FlushAsync(default);
        Assert.That(_calls.Calls[^1].Callback, Is.EqualTo("flush"));
    }

    [Test]
    public async Task Reads_are_kept_only_if_that_is_wanted([Values] bool onRead, [Values] CacheMode mode)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            _plugin, new CacheFilter { MinBlockSize = Block, OnRead = onRead, Store = CacheStore.Memory, Mode = mode });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await Read(disk, Block + 5, 10), Is.EqualTo(_before[(Block + 5)..(Block + 15)]));
        Assert.That(await Read(disk, Block + 5, 10), Is.EqualTo(_before[(Block + 5)..(Block + 15)]));
        (long, long)[] kept = [(Block, Block)];
        (long, long)[] passed = [(Block + 5, 10), (Block + 5, 10)];
        Assert.That(Ranges("read"), Is.EqualTo(onRead ? kept : passed));
    }

    [Test]
    public async Task Prefetches_bring_runs_of_blocks_into_the_cache_with_one_read()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(Block + 5, 4 * Block, default);
        Assert.That(Ranges("read"), Is.EqualTo(new[] { (Block, 5L * Block) }));
        _calls.Clear();
        Assert.That(disk.ReadAsync(new byte[4 * Block], Block + 5, default).IsCompletedSuccessfully, Is.True);
        Assert.That(_calls.Lines, Is.Empty);
        Assert.That(await ReadAll(disk), Is.EqualTo(_before));
    }

    [Test]
    public async Task Requests_to_other_blocks_do_not_wait()
    {
        var gate = new Gate();
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        _plugin.Script.OnCall = async (call, token) =>
        {
            if (call is { Callback: "read", Offset: 0 })
            {
                await gate.PassAsync(token);
            }
        };
        Task first = disk.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default).AsTask();
        Task second = disk.WriteAsync(Filled(10, 2), 10, RequestFlags.None, default).AsTask();
        await gate.ArrivedAsync();
        await disk.WriteAsync(Filled(10, 3), Block, RequestFlags.None, default).Soon();
        Assert.That(await Read(disk, Block, 10).Soon(), Is.EqualTo(Filled(10, 3)));
        Assert.That(first.IsCompleted || second.IsCompleted, Is.False);
        gate.Open();
        await Task.WhenAll(first, second).Soon();
        Assert.That(await Read(disk, 0, 20), Is.EqualTo(Filled(10, 1).Concat(Filled(10, 2))));
    }

    [Test]
    public async Task A_write_through_that_fails_below_leaves_no_old_data_in_the_cache()
    {
        await using NbdBackend chain = Compose(CacheMode.WriteThrough);
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(0, Block, default);
        _plugin.Script.Fail("write", 1);
        Assert.That(async () => await disk.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default), Throws.TypeOf<NbdException>());
        // It may have been done in part.
        _plugin.Data[0] = 1;
        Assert.That(await Read(disk, 0, 1), Is.EqualTo(Filled(1, 1)));
    }

    [Test]
    public async Task Blocks_are_as_large_as_the_layer_below_prefers_and_requests_as_small_as_it_takes()
    {
        _plugin.Info = (_, info) => info with { Size = 16 * Block, BlockSize = new BlockSize(512, 16_384, 16_384) };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new CacheFilter { MinBlockSize = 32_768, Store = CacheStore.Memory });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(512, 16_384, 16_384)));
        await disk.WriteAsync(Filled(512, 1), 512, RequestFlags.None, default);
        await disk.FlushAsync(default);
        Assert.That(Ranges("read"), Is.EqualTo(new[] { (0L, 16_384L), (16_384L, 16_384L) }));
        Assert.That(Ranges("write"), Is.EqualTo(new[] { (0L, 16_384L), (16_384L, 16_384L) }));
    }

    [Test]
    public async Task A_layer_that_cannot_write_stays_so()
    {
        _plugin.Info = (_, info) => new NbdExportInfo { Size = info.Size };
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanWrite, disk.Info.CanFua, disk.Info.CanZero), Is.EqualTo((false, Support.None, Support.None)));
        await disk.FlushAsync(default);
        await disk.CacheAsync(0, _before.Length, default);
        Assert.That(await ReadAll(disk), Is.EqualTo(_before));
    }

    private static CacheFilter Filter(CacheMode mode = CacheMode.WriteBack, CacheStore store = CacheStore.Memory)
        => new() { MinBlockSize = Block, Mode = mode, Store = store };

    private NbdBackend Compose(CacheMode mode = CacheMode.WriteBack, CacheStore store = CacheStore.Memory)
        => NbdBackend.Compose(_plugin, Filter(mode, store));

    private (long Offset, long Length)[] Ranges(string callback)
        => [.. _calls.Calls.Where(call => call.Callback == callback && !call.Failed).Select(call => (call.Offset, call.Length))];

    private static byte[] Filled(int length, byte value)
    {
        var data = new byte[length];
        Array.Fill(data, value);
        return data;
    }

    private static async Task<byte[]> Read(NextContext disk, long offset, int length)
    {
        var buffer = new byte[length];
        await disk.ReadAsync(buffer, offset, default);
        return buffer;
    }

    private static Task<byte[]> ReadAll(NextContext disk) => Read(disk, 0, (int)disk.Info.Size);
}
