using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class ScanFilterTests
{
    private const int Step = 4096;
    private const int Steps = 8;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly FakeTimeProvider _time = new();

    public ScanFilterTests() => _plugin = new RecordingPlugin(_calls) { Data = new byte[(Steps * Step) - 100] };

    [Test]
    public async Task The_whole_disk_is_prefetched_over_a_context_of_its_own()
    {
        Task last = Arrives("cache", (Steps - 1) * Step);
        await using NbdBackend chain = Compose(new ScanFilter { RequestSize = Step });
        await using NextContext disk = await chain.OpenAsync("x");
        await last;
        RecordedCall[] caches = Prefetches();
        Assert.That(caches.Select(call => call.Offset), Is.EqualTo(Enumerable.Range(0, Steps).Select(i => (long)i * Step)));
        Assert.That(caches[^1].Length, Is.EqualTo(Step - 100));
        int context = caches[0].Context;
        RecordedCall open = _calls.Calls.Single(call => call.Callback == "open" && call.Context == context);
        Assert.That((open.ExportName, open.ReadOnly), Is.EqualTo(("x", true)));
    }

    [Test]
    public async Task Where_nothing_takes_prefetches_the_scan_reads([Values] Support cache)
    {
        _plugin.Info = (_, info) => info with { CanCache = cache };
        string callback = cache == Support.Native ? "cache" : "read";
        Task last = Arrives(callback, (Steps - 1) * Step);
        await using NbdBackend chain = Compose(new ScanFilter { RequestSize = Step });
        await using NextContext disk = await chain.OpenAsync();
        await last;
        Assert.That(Prefetches(callback), Has.Length.EqualTo(Steps));
    }

    [Test]
    public async Task A_cache_below_fills_up()
    {
        var cache = new CacheFilter { MinBlockSize = Step, Store = CacheStore.Memory };
        var scan = new ScanFilter { RequestSize = Step };
        Task last = Arrives("read", (Steps - 1) * Step);
        await using NbdBackend chain = NbdBackend.Compose(_plugin, scan, cache);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await last;
        }
        _calls.Clear();
        await using NextContext later = await chain.OpenAsync();
        await later.ReadAsync(new byte[Step], 0, default);
        Assert.That(_calls.Calls.Where(call => call is { Callback: "read", Offset: 0 }), Is.Empty);
    }

    [Test]
    public async Task The_rate_is_kept()
    {
        await using NbdBackend chain = Compose(new ScanFilter { RequestSize = Step, Rate = Step, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 1; i < Steps; i++)
        {
            await _time.WaitForTimersAsync();
            Assert.That(Prefetches(), Has.Length.EqualTo(i));
            _time.Advance(TimeSpan.FromSeconds(1));
        }
    }

    [Test]
    public async Task A_scan_jumps_ahead_to_what_clients_read([Values] bool ahead)
    {
        await using NbdBackend chain = Compose(
            new ScanFilter { RequestSize = Step, Rate = Step, Ahead = ahead, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        await _time.WaitForTimersAsync();
        await disk.ReadAsync(new byte[Step], 4 * Step, default);
        _time.Advance(TimeSpan.FromSeconds(1));
        await _time.WaitForTimersAsync();
        Assert.That(Prefetches().Select(call => call.Offset), Is.EqualTo(new long[] { 0, (ahead ? 5 : 1) * Step }));
    }

    [Test]
    public async Task The_next_scan_goes_on_where_the_last_one_stopped([Values] bool clock)
    {
        await using NbdBackend chain = Compose(
            new ScanFilter { RequestSize = Step, Rate = Step, Clock = clock, TimeProvider = _time });
        await using (NextContext first = await chain.OpenAsync())
        {
            await _time.WaitForTimersAsync();
            _time.Advance(TimeSpan.FromSeconds(1));
            await _time.WaitForTimersAsync();
        }
        Assert.That(_time.PendingTimers, Is.Zero, "it stops with its last client");
        await using NextContext second = await chain.OpenAsync();
        await _time.WaitForTimersAsync();
        Assert.That(Prefetches().Select(call => call.Offset), Is.EqualTo(new long[] { 0, Step, (clock ? 2 : 0) * Step }));
    }

    [Test]
    public async Task A_scan_forever_begins_again()
    {
        await using NbdBackend chain = Compose(
            new ScanFilter { RequestSize = Step, Rate = Step, Forever = true, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < Steps + 1; i++)
        {
            await _time.WaitForTimersAsync();
            _time.Advance(TimeSpan.FromSeconds(1));
        }
        await _time.WaitForTimersAsync();
        Assert.That(Prefetches().Select(call => call.Offset).TakeLast(2), Is.EqualTo(new long[] { 0, Step }));
    }

    [Test]
    public async Task Errors_are_passed_over()
    {
        _plugin.Script.Fail("cache", call => call.Offset == Step ? new NbdException(NbdError.IoError, "bad sector") : null);
        Task last = Arrives("cache", (Steps - 1) * Step);
        await using NbdBackend chain = Compose(new ScanFilter { RequestSize = Step });
        await using NextContext disk = await chain.OpenAsync();
        await last;
        Assert.That(Prefetches(), Has.Length.EqualTo(Steps));
    }

    [Test]
    public async Task The_end_of_the_chain_stops_a_scan_that_hangs()
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == "cache" ? gate.PassAsync(token) : default;
        NbdBackend chain = Compose(new ScanFilter());
        NextContext disk = await chain.OpenAsync();
        await gate.ArrivedAsync();
        await disk.ReadAsync(new byte[1], 0, default).Soon();
        await chain.DisposeAsync().Soon();
        _calls.AssertBalanced();
    }

    [Test]
    public async Task One_connection_at_a_time_leaves_no_place_for_a_scan()
    {
        var plugin = new RecordingPlugin(_calls) { ThreadModel = ThreadModel.SerializeConnections };
        await using (NbdBackend chain = NbdBackend.Compose(plugin, new ScanFilter()))
        {
            await using NextContext disk = await chain.OpenAsync();
            await disk.ReadAsync(new byte[1], 0, default);
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        var filter = (ScanFilter)ScanFilter.Entry.Create(new NbdParameters("scan",
        [
            new("scan-ahead", "no"), new("scan-clock", "no"), new("scan-forever", "yes"), new("scan-size", "1M"), new("scan-rate", "10M"),
        ]));
        Assert.That((filter.Ahead, filter.Clock, filter.Forever), Is.EqualTo((false, false, true)));
        Assert.That((filter.RequestSize, filter.Rate), Is.EqualTo((1L << 20, 10L << 20)));
        var defaults = (ScanFilter)ScanFilter.Entry.Create(new NbdParameters("scan", []));
        Assert.That((defaults.Ahead, defaults.Clock, defaults.Forever, defaults.RequestSize, defaults.Rate), Is.EqualTo((true, true, false, 2L << 20, (long?)null)));
        Assert.That(() => new ScanFilter { RequestSize = 5000 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ScanFilter { Rate = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private NbdBackend Compose(ScanFilter filter) => NbdBackend.Compose(_plugin, filter);

    private RecordedCall[] Prefetches(string callback = "cache")
        => [.. _calls.Calls.Where(call => call.Callback == callback && !call.Failed)];

    private Task Arrives(string callback, long offset)
    {
        var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _plugin.Script.OnCall = (call, _) =>
        {
            if (call.Callback == callback && call.Offset == offset)
            {
                arrived.TrySetResult();
            }
            return default;
        };
        return arrived.Task.Soon();
    }
}
