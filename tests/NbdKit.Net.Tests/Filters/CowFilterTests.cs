using NbdKit.Buffers;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CowFilterTests
{
    private const int Block = 4096;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;

    public CowFilterTests()
    {
        var data = new byte[(16 * Block) + 100];
        new Random(1).NextBytes(data);
        _plugin = new RecordingPlugin(_calls) { Data = data };
    }

    [Test]
    public async Task Writes_are_seen_above_and_never_below([Values] CowStore store)
    {
        byte[] before = [.. _plugin.Data];
        await using NbdBackend chain = Compose(store);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(10, 1), 5, RequestFlags.None, default);
        await disk.WriteAsync(Filled(3 * Block, 2), Block - 7, RequestFlags.Fua, default);
        await disk.FlushAsync(default);

        byte[] expected = [.. before];
        Filled(10, 1).CopyTo(expected, 5);
        Filled(3 * Block, 2).CopyTo(expected, Block - 7);
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
        Assert.That(_plugin.Data, Is.EqualTo(before));
        Assert.That(_calls.Calls.Single(call => call.Callback == "open").ReadOnly, Is.True);
        Assert.That(_calls.Count("plugin", "write") + _calls.Count("plugin", "flush"), Is.Zero);
    }

    [Test]
    public async Task A_layer_that_can_do_nothing_but_read_becomes_fully_writable()
    {
        _plugin.Info = (_, info) => new NbdExportInfo { Size = info.Size };
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That(info.Size, Is.EqualTo(_plugin.Data.Length));
        Assert.That(info.CanWrite && info.CanTrim && info.CanFlush && info.CanMultiConn && info.CanExtents && info.CanFastZero, Is.True);
        Assert.That((info.CanZero, info.CanFua, info.CanCache), Is.EqualTo((Support.Native, Support.Native, Support.None)));
        Assert.That(info.BlockSize, Is.EqualTo(new BlockSize(1, Block)));
        await disk.WriteAsync(Filled(1, 1), 0, RequestFlags.Fua, default);
    }

    [Test]
    public async Task Only_what_was_never_changed_is_lent_by_the_layer_below([Values] bool copiesOnRead)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new DataPlugin { Data = TestData.Random(16 * Block) }, new CowFilter { BlockSize = Block, OnRead = copiesOnRead });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(1, 1), 4 * Block, RequestFlags.None, default);
        await disk.TrimAsync(9 * Block, Block, RequestFlags.None, default);

        Assert.That(Lends(disk, 0, 4 * Block), Is.EqualTo(!copiesOnRead));
        Assert.That(Lends(disk, (5 * Block) + 1, (4 * Block) - 1), Is.EqualTo(!copiesOnRead));
        Assert.That(Lends(disk, 3 * Block, Block + 1), Is.False, "a changed block");
        Assert.That(Lends(disk, 9 * Block, Block), Is.False, "a trimmed block");
        Assert.That(Lends(disk, 0, Block, forWrite: true), Is.False);
    }

    private static bool Lends(NextContext disk, long offset, int length, bool forWrite = false)
    {
        var loan = new Loan();
        bool lends = disk.TryLend(offset, length, loan, forWrite);
        loan.TryReset();
        return lends;
    }

    [Test]
    public async Task Another_connection_sees_the_same_overlay_and_finds_it_again_later()
    {
        await using NbdBackend chain = Compose();
        await using (NextContext first = await chain.OpenAsync("x"))
        {
            await using NextContext second = await chain.OpenAsync("x");
            await first.WriteAsync(Filled(100, 7), 50, RequestFlags.None, default);
            Assert.That(await Read(second, 50, 100), Is.EqualTo(Filled(100, 7)));
        }
        await using NextContext later = await chain.OpenAsync("x");
        Assert.That(await Read(later, 50, 100), Is.EqualTo(Filled(100, 7)));
        await using NextContext other = await chain.OpenAsync("y");
        Assert.That(await Read(other, 50, 100), Is.EqualTo(_plugin.Data[50..150]));
    }

    [Test]
    public async Task A_client_with_TLS_and_one_without_have_different_overlays()
    {
        await using NbdBackend chain = Compose();
        await chain.StartAsync();
        await using NextContext secret = await OpenFor(chain, isTls: true);
        await using NextContext plain = await OpenFor(chain, isTls: false);
        await secret.WriteAsync(Filled(10, 7), 0, RequestFlags.None, default);
        Assert.That(await Read(plain, 0, 10), Is.EqualTo(_plugin.Data[..10]));
    }

    [Test]
    public async Task A_read_only_client_sees_the_overlay_and_cannot_write()
    {
        await using NbdBackend chain = Compose();
        await using NextContext writer = await chain.OpenAsync();
        await using NextContext reader = await chain.OpenAsync(readOnly: true);
        await writer.WriteAsync(Filled(10, 7), 0, RequestFlags.None, default);
        Assert.That(await Read(reader, 0, 10), Is.EqualTo(Filled(10, 7)));
        Assert.That(reader.Info.CanWrite, Is.False);
    }

    [Test]
    public async Task A_disk_that_comes_back_with_another_size_is_refused_if_it_was_written_to()
    {
        long size = _plugin.Data.Length;
        _plugin.Info = (_, info) => info with { Size = size };
        await using NbdBackend chain = Compose();
        await (await chain.OpenAsync()).CloseAsync();
        size = 8192;
        await using (NextContext smaller = await chain.OpenAsync())
        {
            Assert.That(smaller.Info.Size, Is.EqualTo(8192));
            await smaller.WriteAsync(Filled(1, 1), 8191, RequestFlags.None, default);
        }
        size = 9000;
        Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>());
        size = 8192;
        await using NextContext same = await chain.OpenAsync();
        Assert.That(await Read(same, 8191, 1), Is.EqualTo(Filled(1, 1)));
    }

    [Test]
    public async Task Runs_of_blocks_in_the_same_place_take_one_read_below()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(4 * Block, 1), 4 * Block, RequestFlags.None, default);
        Assert.That(_calls.Count("plugin", "read"), Is.Zero, "whole blocks need nothing from below");
        await ReadAll(disk);
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "read").Select(call => (call.Offset, call.Length)),
            Is.EqualTo(new[] { (0L, 4L * Block), (8L * Block, (8L * Block) + 100) }));
    }

    [Test]
    public async Task A_write_over_many_blocks_reads_below_only_for_its_ends()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(5 * Block, 1), Block / 2, RequestFlags.None, default);
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "read").Select(call => (call.Offset, call.Length)),
            Is.EqualTo(new[] { (0L, (long)Block), (5L * Block, Block) }));
    }

    [Test]
    public async Task The_short_block_at_the_end_can_be_written_in_part([Values] CowStore store)
    {
        await using NbdBackend chain = Compose(store);
        await using NextContext disk = await chain.OpenAsync();
        long last = _plugin.Data.Length - 1;
        await disk.WriteAsync(Filled(1, 9), last, RequestFlags.None, default);
        byte[] expected = [.. _plugin.Data];
        expected[last] = 9;
        Assert.That(await ReadAll(disk), Is.EqualTo(expected));
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], last + 1, default), Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task A_failure_below_leaves_the_block_as_it_was()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        _plugin.Script.Fail("read", 1);
        Assert.That(
            async () => await disk.WriteAsync(Filled(10, 1), 100, RequestFlags.None, default),
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.IoError));
        Assert.That(await Status(disk, 0, Block), Is.EqualTo(new[] { (0L, (long)Block, ExtentStatus.Data) }));
        _calls.Clear();
        Assert.That(await Read(disk, 0, Block), Is.EqualTo(_plugin.Data[..Block]));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1), "the block still comes from below");
        await disk.WriteAsync(Filled(10, 1), 100, RequestFlags.None, default);
        Assert.That(await Read(disk, 100, 10), Is.EqualTo(Filled(10, 1)));
    }

    [Test]
    public async Task A_store_that_cannot_be_written_leaves_the_block_as_it_was()
    {
        string directory = Directory.CreateTempSubdirectory("cow").FullName;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new CowFilter { BlockSize = Block, Directory = directory });
        await using NextContext disk = await chain.OpenAsync();
        Directory.Delete(directory);
        Assert.That(
            async () => await disk.WriteAsync(Filled(10, 1), 100, RequestFlags.None, default),
            Throws.InstanceOf<NbdException>().With.Message.Contains("cannot create a temporary file"));
        Assert.That(await Read(disk, 0, Block), Is.EqualTo(_plugin.Data[..Block]));
    }

    [Test]
    public async Task Two_writes_to_one_block_both_survive_and_another_block_does_not_wait()
    {
        var gate = new TaskCompletionSource();
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        _plugin.Script.OnCall = async (call, _) =>
        {
            if (call is { Callback: "read", Offset: 0 })
            {
                await gate.Task;
            }
        };
        Task first = disk.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default).AsTask();
        Task second = disk.WriteAsync(Filled(10, 2), 10, RequestFlags.None, default).AsTask();
        Task whole = disk.WriteAsync(Filled(Block, 3), 0, RequestFlags.None, default).AsTask();
        Task third = disk.WriteAsync(Filled(10, 4), 20, RequestFlags.None, default).AsTask();
        try
        {
            await disk.WriteAsync(Filled(10, 5), Block, RequestFlags.None, default).AsTask().WaitAsync(TimeSpan.FromSeconds(30));
            Assert.That(first.IsCompleted || second.IsCompleted || whole.IsCompleted || third.IsCompleted, Is.False);
        }
        finally
        {
            gate.SetResult();
        }
        await Task.WhenAll(first, second, whole, third).WaitAsync(TimeSpan.FromSeconds(30));
        byte[] expected = Filled(Block, 3);
        Filled(10, 4).CopyTo(expected, 20);
        Assert.That(await Read(disk, 0, Block), Is.EqualTo(expected));
    }

    [Test]
    public async Task Blocks_in_memory_complete_at_once_and_ask_nothing_below()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(Filled(Block, 1), 0, RequestFlags.None, default);
        _calls.Clear();
        Assert.That(disk.WriteAsync(Filled(10, 2), 5, RequestFlags.None, default).IsCompletedSuccessfully, Is.True);
        Assert.That(disk.ReadAsync(new byte[10], 5, default).IsCompletedSuccessfully, Is.True);
        Assert.That(_calls.Lines, Is.Empty);
    }

    [Test]
    public async Task The_blocks_are_as_large_as_the_layer_below_needs_and_reads_there_as_small()
    {
        _plugin.Info = (_, info) => info with { Size = 16 * Block, BlockSize = new BlockSize(8192, 8192, 16_384) };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new CowFilter { BlockSize = Block, Store = CowStore.Memory });
        await using (NextContext disk = await chain.OpenAsync())
        {
            Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(8192, 8192, 16_384)));
            await disk.WriteAsync(Filled(10, 1), 8192 + 5, RequestFlags.None, default);
        }
        RecordedCall read = _calls.Calls.Single(call => call.Callback == "read");
        Assert.That((read.Offset, read.Length), Is.EqualTo((8192, 8192)));

        await using NbdBackend large = NbdBackend.Compose(
            new RecordingPlugin(_calls) { Data = _plugin.Data, Info = _plugin.Info }, new CowFilter { BlockSize = 32_768, Store = CowStore.Memory });
        await using NextContext other = await large.OpenAsync();
        Assert.That(other.Info.BlockSize, Is.EqualTo(new BlockSize(8192, 8192, 16_384)));
        _calls.Clear();
        await other.WriteAsync(Filled(10, 1), 5, RequestFlags.None, default);
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "read").Select(call => (call.Offset, call.Length)),
            Is.EqualTo(new[] { (0L, 16_384L), (16_384L, 16_384L) }));
    }

    [Test]
    public async Task Every_context_below_is_closed_once()
    {
        await using (NbdBackend chain = Compose())
        {
            await using NextContext first = await chain.OpenAsync("a");
            await using NextContext second = await chain.OpenAsync("b");
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        }
        _calls.AssertBalanced();
        Assert.That(_calls.Count("plugin", "close"), Is.EqualTo(2));
    }

    [Test]
    public void Parameters_set_the_properties()
    {
        CowFilter filter = Create(("cow-block-size", "4K"), ("cow-on-cache", "true"), ("cow-on-read", "/tmp/flag"), ("cow-store", "memory"), ("cow-directory", "/tmp"));
        Assert.That((filter.BlockSize, filter.OnCache, filter.OnRead, filter.Store), Is.EqualTo((4096, true, false, CowStore.Memory)));
        Assert.That((filter.OnReadFile, filter.Directory), Is.EqualTo(("/tmp/flag", "/tmp")));
        CowFilter defaults = Create();
        Assert.That((defaults.BlockSize, defaults.OnCache, defaults.OnRead, defaults.Store), Is.EqualTo((65_536, false, false, CowStore.File)));
        Assert.That(Create(("cow-on-read", "true")).OnRead, Is.True);
    }

    [Test]
    public void Bad_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new CowFilter { BlockSize = 2048 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CowFilter { BlockSize = 5000 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CowFilter { BlockSize = 64 << 20 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CowFilter { Store = (CowStore)7 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => Create(("cow-on-read", "relative/path")), Throws.ArgumentException);
        Assert.That(() => Create(("cow-store", "tape")), Throws.ArgumentException);
        NbdBackend chain = NbdBackend.Compose(_plugin, new CowFilter { Directory = "/nonexistent/cow" });
        Assert.That(async () => await chain.StartAsync(), Throws.TypeOf<DirectoryNotFoundException>());
    }

    private static CowFilter Create(params (string Name, string Value)[] parameters)
        => (CowFilter)CowFilter.Entry.Create(
            new NbdParameters("cow", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    private NbdBackend Compose(CowStore store = CowStore.Memory)
        => NbdBackend.Compose(_plugin, new CowFilter { BlockSize = Block, Store = store });

    private static async Task<NextContext> OpenFor(NbdBackend chain, bool isTls)
    {
        var connection = new NbdConnection(1, NbdPeer.Unknown, default, _ => { }, () => { }) { IsTls = isTls };
        NextContext disk = await chain.OpenEntryAsync(false, "", connection, default);
        await disk.PrepareAsync(default);
        return disk;
    }

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

    private static async Task<(long Offset, long Length, ExtentStatus Status)[]> Status(NextContext disk, long offset, long length)
        => [.. (await disk.ExtentsFullAsync(offset, length, ExtentList.BaseAllocation, default)).Select(e => (e.Offset, e.Length, e.Status))];
}
