using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class DelayFilterTests
{
    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();

    private static readonly string[] Operations = ["read", "write", "trim", "zero", "cache", "extents"];

    [Test]
    public async Task Each_operation_waits_its_own_delay_before_it_reaches_the_plugin([ValueSource(nameof(Operations))] string operation)
    {
        var filter = new DelayFilter
        {
            Read = TimeSpan.FromSeconds(1),
            Write = TimeSpan.FromSeconds(2),
            Trim = TimeSpan.FromSeconds(3),
            Zero = TimeSpan.FromSeconds(4),
            Cache = TimeSpan.FromSeconds(5),
            Extents = TimeSpan.FromSeconds(6),
            TimeProvider = _time,
        };
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), filter);
        await using NextContext disk = await chain.OpenAsync();

        Task pending = Call(disk, operation);
        await _time.WaitForTimersAsync();
        TimeSpan delay = TimeSpan.FromSeconds(Array.IndexOf(Operations, operation) switch { 0 => 1, 1 => 2, 2 => 3, 3 => 4, 4 => 5, _ => 6 });
        Assert.That(_time.NextTimer, Is.EqualTo(delay));
        _time.Advance(delay - TimeSpan.FromTicks(1));
        Assert.That(_calls.Count("plugin", operation), Is.Zero);
        _time.Advance(TimeSpan.FromTicks(1));
        await pending;
        Assert.That(_calls.Count("plugin", operation), Is.EqualTo(1));
    }

    [Test]
    public async Task Without_a_delay_no_operation_waits([ValueSource(nameof(Operations))] string operation)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls), new DelayFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(Call(disk, operation).IsCompletedSuccessfully, Is.True);
        Assert.That(_calls.Count("plugin", operation), Is.EqualTo(1));
    }

    [Test]
    public async Task Flushes_are_never_delayed()
    {
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), Slow());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.FlushAsync(default).IsCompletedSuccessfully, Is.True);
    }

    [Test]
    public async Task Requests_wait_at_the_same_time()
    {
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), Slow());
        await using NextContext disk = await chain.OpenAsync();
        Task[] reads = [.. Enumerable.Range(0, 10).Select(i => disk.ReadAsync(new byte[10], i * 10, default).AsTask())];
        Assert.That(_time.PendingTimers, Is.EqualTo(10));
        _time.Advance(TimeSpan.FromSeconds(1));
        await Task.WhenAll(reads);
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(10));
    }

    [Test]
    public async Task A_client_that_leaves_ends_the_delay_with_ESHUTDOWN([ValueSource(nameof(Operations))] string operation)
    {
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), Slow());
        await using NextContext disk = await chain.OpenAsync();
        using var gone = new CancellationTokenSource();
        Task pending = Call(disk, operation, gone.Token);
        Assert.That(_time.PendingTimers, Is.EqualTo(1));
        await gone.CancelAsync();
        Assert.That(
            async () => await pending,
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.Shutdown));
        Assert.That(_calls.Count("plugin", operation), Is.Zero);
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task Open_and_close_are_delayed_and_each_layer_is_finalized_once()
    {
        var below = new RecordingFilter(_calls, "below");
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls),
            new DelayFilter { Open = TimeSpan.FromSeconds(3), Close = TimeSpan.FromSeconds(5), TimeProvider = _time },
            below);
        Task<NextContext> opening = chain.OpenAsync().AsTask();
        await _time.WaitForTimersAsync();
        Assert.That(_calls.Count("below", "open"), Is.Zero);
        _time.Advance(TimeSpan.FromSeconds(3));
        NextContext disk = await opening;

        Task closing = disk.CloseAsync().AsTask();
        await _time.WaitForTimersAsync();
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(5)));
        Assert.That(_calls.Count("below", "finalize"), Is.Zero);
        _time.Advance(TimeSpan.FromSeconds(5));
        await closing;
        _calls.AssertBalanced();
        Assert.That(_calls.Count("below", "finalize"), Is.EqualTo(1));
    }

    [Test]
    public async Task A_close_that_has_to_be_quick_ends_its_delay()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls), new DelayFilter { Close = TimeSpan.FromSeconds(5), TimeProvider = _time });
        NextContext disk = await chain.OpenAsync();
        Assert.That(
            async () => await disk.FinalizeAsync(new CancellationToken(canceled: true)),
            Throws.InstanceOf<OperationCanceledException>());
        await disk.CloseAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(30));
        _calls.AssertBalanced();
        Assert.That(_calls.Count("plugin", "close"), Is.EqualTo(1));
    }

    [Test]
    public async Task Fast_zeroes_are_refused_at_once_if_they_are_not_to_be_delayed()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls) { Info = (_, info) => info with { CanFastZero = false } },
            new DelayFilter { Zero = TimeSpan.FromSeconds(1), DelayFastZero = false, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanFastZero, Is.True);
        Assert.That(
            async () => await disk.ZeroAsync(0, 512, RequestFlags.FastZero, default),
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.NotSupported));
        Assert.That(_time.PendingTimers, Is.Zero);
        Assert.That(_calls.Count("plugin", "zero"), Is.Zero);
    }

    [Test]
    public async Task Fast_zeroes_are_not_refused_where_zeroes_are_not_delayed()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls), new DelayFilter { DelayFastZero = false, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 512, RequestFlags.FastZero, default);
        Assert.That(_calls.Count("plugin", "zero"), Is.EqualTo(1));
    }

    [Test]
    public async Task What_is_emulated_is_delayed_as_what_it_is()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls)
            {
                Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate, CanExtents = false },
            },
            new DelayFilter
            {
                Zero = TimeSpan.FromSeconds(1),
                Cache = TimeSpan.FromSeconds(2),
                Extents = TimeSpan.FromSeconds(3),
                Write = TimeSpan.FromSeconds(100),
                Read = TimeSpan.FromSeconds(100),
                TimeProvider = _time,
            });
        await using NextContext disk = await chain.OpenAsync();
        foreach ((string operation, int seconds) in new[] { ("zero", 1), ("cache", 2), ("extents", 3) })
        {
            Task pending = Call(disk, operation);
            Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(seconds)), operation);
            _time.Advance(TimeSpan.FromSeconds(seconds));
            await pending.WaitAsync(TimeSpan.FromSeconds(30));
        }
        Assert.That(_calls.Count("plugin", "write"), Is.EqualTo(1));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1));
    }

    [Test]
    public async Task Delays_can_be_changed_while_the_filter_serves([ValueSource(nameof(Operations))] string operation)
    {
        var filter = new DelayFilter { DelayFastZero = false, TimeProvider = _time };
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls)
            {
                Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate, CanExtents = false },
            },
            filter);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(Call(disk, operation).IsCompletedSuccessfully);
        for (int seconds = 1; seconds <= 2; seconds++)
        {
            var delay = TimeSpan.FromSeconds(seconds);
            (filter.Read, filter.Write, filter.Trim, filter.Zero, filter.Cache, filter.Extents) = (delay, delay, delay, delay, delay, delay);
            Task pending = Call(disk, operation);
            Assert.That(_time.NextTimer, Is.EqualTo(delay));
            if (operation == "zero")
            {
                Assert.That(
                    async () => await disk.ZeroAsync(0, 512, RequestFlags.FastZero, default), Throws.InstanceOf<NbdException>());
            }
            _time.Advance(delay);
            await pending.Soon();
        }
        (filter.Read, filter.Write, filter.Trim, filter.Zero, filter.Cache, filter.Extents) = (default, default, default, default, default, default);
        Assert.That(Call(disk, operation).IsCompletedSuccessfully);
        Assert.That(() => filter.Open = TimeSpan.FromTicks(-1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        filter.Close = filter.Open = TimeSpan.FromSeconds(3);
        Task<NextContext> opening = chain.OpenAsync().AsTask();
        await _time.WaitForTimersAsync();
        (filter.Open, filter.Close) = (default, default);
        _time.Advance(TimeSpan.FromSeconds(3));
        await (await opening.Soon()).DisposeAsync();
    }

    [Test]
    public void Parameters_set_the_delays()
    {
        DelayFilter filter = Create(("rdelay", "100ms"), ("wdelay", "2"), ("delay-trim", "3"), ("delay-fast-zero", "no"), ("delay-open", "4s"), ("delay-close", "5us"));
        Assert.That(filter.Read, Is.EqualTo(TimeSpan.FromMilliseconds(100)));
        Assert.That(filter.Write, Is.EqualTo(TimeSpan.FromSeconds(2)));
        Assert.That(filter.Zero, Is.EqualTo(TimeSpan.FromSeconds(2)));
        Assert.That(filter.Trim, Is.EqualTo(TimeSpan.FromSeconds(3)));
        Assert.That(filter.Extents, Is.EqualTo(TimeSpan.Zero));
        Assert.That(filter.Cache, Is.EqualTo(TimeSpan.Zero));
        Assert.That(filter.Open, Is.EqualTo(TimeSpan.FromSeconds(4)));
        Assert.That(filter.Close, Is.EqualTo(TimeSpan.FromMicroseconds(5)));
        Assert.That(filter.DelayFastZero, Is.False);
        DelayFilter other = Create(("delay-read", "1"), ("delay-write", "2"), ("delay-zero", "3"), ("delay-extents", "4"), ("delay-cache", "5"));
        Assert.That(
            new[] { other.Read, other.Write, other.Zero, other.Trim, other.Extents, other.Cache }.Select(d => d.TotalSeconds),
            Is.EqualTo(new[] { 1, 2, 3, 0, 4, 5 }));
        Assert.That(other.DelayFastZero, Is.True);
    }

    [Test]
    public void Bad_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new DelayFilter { Read = TimeSpan.FromTicks(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DelayFilter { Close = TimeSpan.FromDays(50) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DelayFilter { TimeProvider = null! }, Throws.ArgumentNullException);
        Assert.That(() => Create(("rdelay", "soon")), Throws.ArgumentException);
    }

    private static DelayFilter Create(params (string Name, string Value)[] parameters)
        => (DelayFilter)DelayFilter.Entry.Create(
            new NbdParameters("delay", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    private DelayFilter Slow()
    {
        var second = TimeSpan.FromSeconds(1);
        return new DelayFilter
        {
            Read = second,
            Write = second,
            Trim = second,
            Zero = second,
            Cache = second,
            Extents = second,
            TimeProvider = _time,
        };
    }

    private static Task Call(NextContext disk, string operation, CancellationToken cancellationToken = default)
        => (operation switch
        {
            "read" => disk.ReadAsync(new byte[512], 0, cancellationToken),
            "write" => disk.WriteAsync(new byte[512], 0, RequestFlags.None, cancellationToken),
            "trim" => disk.TrimAsync(0, 512, RequestFlags.None, cancellationToken),
            "zero" => disk.ZeroAsync(0, 512, RequestFlags.None, cancellationToken),
            "cache" => disk.CacheAsync(0, 512, cancellationToken),
            _ => disk.ExtentsAsync(0, 512, RequestFlags.None, new ExtentList(0, disk.Info.Size), cancellationToken),
        }).AsTask();
}
