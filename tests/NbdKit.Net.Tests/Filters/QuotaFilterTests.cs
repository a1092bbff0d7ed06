using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class QuotaFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly FakeTimeProvider _time = new();

    [Test]
    public async Task A_client_gets_its_quota_to_the_last_byte_and_then_an_error_and_then_nothing()
    {
        await using ChainServer server = await StartAsync(new QuotaFilter { Read = 10_000, TimeProvider = _time });
        WireClient client = await server.TransmitAsync();
        await client.ReadDataAsync(0, 9_999);
        await client.WriteDataAsync(0, new byte[50_000]);
        await client.ReadDataAsync(0, 1);
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Read, 0, 1);
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Write, 0, 1, payload: [1]);
        _time.Advance(TimeSpan.FromSeconds(1));
        await client.ExpectGoneAsync(NbdDisconnectReason.Disconnected);
        WireClient again = await server.TransmitAsync();
        await again.ReadDataAsync(0, 10_000);
    }

    [Test]
    public async Task What_does_not_fit_has_no_effect([Values] bool total)
    {
        var plugin = new MemoryPlugin { Size = 1 << 20 };
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(
            plugin, new QuotaFilter { Write = total ? null : 100, Total = total ? 100 : null, CloseAfter = TimeSpan.Zero }));
        WireClient client = await server.TransmitAsync();
        await client.WriteDataAsync(0, [.. Enumerable.Repeat((byte)1, 60)]);
        await client.SendRequestAsync(Cmd.Write, 0, 60, payload: [.. Enumerable.Repeat((byte)2, 60)]);
        await client.ExpectEndAsync(NbdDisconnectReason.Disconnected);
        WireClient next = await server.TransmitAsync();
        byte[] read = await next.ReadDataAsync(0, 61);
        Assert.That(read.Take(60), Is.All.EqualTo(1));
        Assert.That(read[60], Is.Zero);
    }

    [Test]
    public async Task Both_directions_count_together_for_the_total()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }, new QuotaFilter { Total = 100 });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ReadAsync(new byte[40], 0, None);
        await disk.WriteAsync(new byte[40], 0, RequestFlags.None, None);
        Assert.That(TestData.Failure(() => disk.ReadAsync(new byte[40], 0, None).AsTask()).Error, Is.EqualTo(NbdError.Shutdown));
        // The host has no connection to lose.
        await disk.ReadAsync(new byte[20], 0, None);
        Assert.That(TestData.Failure(() => disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask()).Error, Is.EqualTo(NbdError.Shutdown));
    }

    [Test]
    public async Task Everything_but_reads_and_writes_is_free()
    {
        var plugin = new RecordingPlugin(new CallRecorder());
        plugin.Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new QuotaFilter { Total = 0 });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 4096, RequestFlags.None, None);
        await disk.TrimAsync(0, 4096, RequestFlags.None, None);
        await disk.CacheAsync(0, 4096, None);
        await disk.ExtentsAsync(0, 4096, RequestFlags.None, new ExtentList(0, 4096), None);
        await disk.FlushAsync(None);
        Assert.That(TestData.Failure(() => disk.ReadAsync(new byte[1], 0, None).AsTask()).Error, Is.EqualTo(NbdError.Shutdown));
    }

    [Test]
    public async Task Large_requests_that_are_lent_count()
    {
        await using ChainServer server = await StartAsync(new QuotaFilter { Read = 3 << 19, TimeProvider = _time });
        WireClient client = await server.TransmitAsync();
        await client.ReadDataAsync(0, 1 << 20);
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Read, 0, 1 << 20);
    }

    [Test]
    public async Task A_client_that_leaves_leaves_no_timer()
    {
        await using ChainServer server = await StartAsync(new QuotaFilter { Read = 0, TimeProvider = _time });
        WireClient client = await server.TransmitAsync();
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Read, 0, 1);
        Assert.That(_time.PendingTimers, Is.EqualTo(1));
        await client.CutAsync();
        await client.ExpectEndAsync();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new QuotaFilter { Read = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new QuotaFilter { CloseAfter = TimeSpan.FromSeconds(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static Task<ChainServer> StartAsync(QuotaFilter filter)
        => ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 4 << 20 }, filter));
}
