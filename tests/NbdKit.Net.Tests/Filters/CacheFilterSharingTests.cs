using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Many connections, one cache; and what becomes of it when they end.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class CacheFilterSharingTests
{
    private const int Block = 4096;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly byte[] _before;

    public CacheFilterSharingTests()
    {
        var data = new byte[(16 * Block) + 100];
        new Random(1).NextBytes(data);
        _plugin = new RecordingPlugin(_calls) { Data = data };
        _before = [.. data];
    }

    [Test]
    public async Task Connections_share_the_cache_of_their_export_and_a_flush_covers_them_all()
    {
        // Below, a flush covers only its own connection.
        _plugin.Info = (_, info) => info with { CanMultiConn = false };
        await using NbdBackend chain = Compose();
        await using NextContext first = await chain.OpenAsync("x");
        await using NextContext second = await chain.OpenAsync("x");
        await using NextContext reader = await chain.OpenAsync("x", readOnly: true);
        await using NextContext other = await chain.OpenAsync("y");
        Assert.That(first.Info.CanMultiConn, Is.True);
        await first.WriteAsync(Filled(100, 7), 50, RequestFlags.None, default);
        Assert.That(await Read(second, 50, 100), Is.EqualTo(Filled(100, 7)));
        Assert.That(await Read(other, 50, 100), Is.EqualTo(_before[50..150]));
        await first.ZeroAsync(Block, Block, RequestFlags.None, default);
        _calls.Clear();
        await second.FlushAsync(default);
        Assert.That(_plugin.Data[50..150], Is.EqualTo(Filled(100, 7)));
        Assert.That(
            _calls.Calls.Select(call => (call.Callback, call.Context)),
            Is.EqualTo(new[] { ("write", 2), ("flush", 2), ("flush", 1) }), "what went through the first has to be flushed there");
        await second.WriteAsync(Filled(100, 8), 50, RequestFlags.None, default);
        await reader.FlushAsync(default);
        Assert.That(_plugin.Data[50..150], Is.EqualTo(Filled(100, 8)));
    }

    [Test]
    public async Task A_flush_writes_the_only_changed_block_while_others_read_it()
    {
        var disk = new ModelPlugin(_before) { RecordsCalls = false };
        await using NbdBackend chain = NbdBackend.Compose(disk, Filter());
        await using NextContext writer = await chain.OpenAsync();
        await using NextContext reader = await chain.OpenAsync();
        using var done = new CancellationTokenSource();
        Task reading = Task.Run(async () =>
        {
            while (!done.IsCancellationRequested)
            {
                await Read(reader, 0, 10);
            }
        });
        int missed = 0;
        for (int i = 0; i < 20_000; i++)
        {
            byte[] data = Filled(10, (byte)i);
            await writer.WriteAsync(data, 0, RequestFlags.None, default);
            await writer.FlushAsync(default);
            missed += disk.Stable.AsSpan(0, 10).SequenceEqual(data) ? 0 : 1;
        }
        await done.CancelAsync();
        await reading;
        Assert.That(missed, Is.Zero, "flushes that were answered and wrote nothing");
    }

    [Test]
    public async Task The_last_connection_that_can_write_writes_everything_back()
    {
        await using NbdBackend chain = Compose();
        await using NextContext reader = await chain.OpenAsync(readOnly: true);
        NextContext second = await chain.OpenAsync();
        await using (NextContext first = await chain.OpenAsync())
        {
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        }
        Assert.That(_plugin.Data, Is.EqualTo(_before));
        await second.CloseAsync();
        Assert.That(_plugin.Data[..10], Is.EqualTo(Filled(10, 1)));
        Assert.That(_calls.Calls.Last(call => call.Callback is "write" or "flush").Callback, Is.EqualTo("flush"));
        Assert.That(await Read(reader, 0, 10), Is.EqualTo(Filled(10, 1)));
    }

    [Test]
    public async Task What_the_last_connection_could_not_write_back_is_written_by_the_next()
    {
        await using NbdBackend chain = Compose();
        _plugin.Script.Fail("write");
        await using (NextContext first = await chain.OpenAsync())
        {
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        }
        await using NextContext reader = await chain.OpenAsync(readOnly: true);
        Assert.That(await Read(reader, 0, 10), Is.EqualTo(Filled(10, 1)));
        Assert.That(async () => await reader.FlushAsync(default), Throws.TypeOf<NbdException>());
        _plugin.Script.Succeed("write");
        await using NextContext second = await chain.OpenAsync();
        await second.FlushAsync(default);
        Assert.That(_plugin.Data[..10], Is.EqualTo(Filled(10, 1)));
    }

    [Test]
    public async Task What_no_connection_could_write_back_is_written_when_the_chain_stops()
    {
        var filter = Filter();
        NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        _plugin.Script.Fail("write", 1);
        await using (NextContext first = await chain.OpenAsync("x"))
        {
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        }
        Assert.That(_plugin.Data, Is.EqualTo(_before));
        await chain.DisposeAsync();
        Assert.That(_plugin.Data[..10], Is.EqualTo(Filled(10, 1)));
        Assert.That(_calls.Calls.Last(call => call.Callback == "open").ExportName, Is.EqualTo("x"));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task What_cannot_be_written_at_all_is_reported_by_the_cleanup()
    {
        var filter = Filter();
        NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        _plugin.Script.Fail("write");
        await using (NextContext first = await chain.OpenAsync("x"))
        {
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
        }
        Assert.That(
            async () => await filter.CleanupAsync(chain, default),
            Throws.TypeOf<NbdException>().With.Message.Contains("1 blocks of 4096 bytes of the export 'x'"));
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_disk_that_comes_back_with_another_size_gets_a_new_cache_unless_something_is_held_back()
    {
        long size = _plugin.Data.Length;
        _plugin.Info = (_, info) => info with { Size = size };
        await using NbdBackend chain = Compose();
        await using (NextContext first = await chain.OpenAsync())
        {
            await first.WriteAsync(Filled(10, 1), 0, RequestFlags.None, default);
            size = 8192;
            Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>());
        }
        await using NextContext second = await chain.OpenAsync();
        Assert.That(await Read(second, 0, 10), Is.EqualTo(Filled(10, 1)));
        Assert.That(second.Info.Size, Is.EqualTo(8192));
    }

    [Test]
    public async Task Clients_with_TLS_and_without_have_different_caches()
    {
        await using NbdBackend chain = Compose();
        await chain.StartAsync();
        await using NextContext secret = await OpenFor(chain, isTls: true);
        await using NextContext plain = await OpenFor(chain, isTls: false);
        await secret.WriteAsync(Filled(10, 7), 0, RequestFlags.None, default);
        Assert.That(await Read(plain, 0, 10), Is.EqualTo(_before[..10]));
    }

    private static async Task<NextContext> OpenFor(NbdBackend chain, bool isTls)
    {
        var connection = new NbdConnection(1, NbdPeer.Unknown, default, _ => { }, () => { }) { IsTls = isTls };
        NextContext disk = await chain.OpenEntryAsync(false, "", connection, default);
        await disk.PrepareAsync(default);
        return disk;
    }

    private static CacheFilter Filter() => new() { MinBlockSize = Block, Store = CacheStore.Memory };

    private NbdBackend Compose() => NbdBackend.Compose(_plugin, Filter());

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
}
