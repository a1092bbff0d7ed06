using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class RetryRequestFilterTests
{
    private static readonly string[] Operations = ["read", "write", "flush", "trim", "zero", "cache", "extents"];

    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin;

    public RetryRequestFilterTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task A_request_that_fails_is_made_again_on_the_same_context([ValueSource(nameof(Operations))] string operation)
    {
        _plugin.Script.Fail(operation, times: 2);
        await using NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("name");
        Task pending = CallAsync(disk, operation);
        for (int i = 0; i < 2; i++)
        {
            await _time.WaitForTimersAsync();
            Assert.That((_time.NextTimer, pending.IsCompleted), Is.EqualTo((TimeSpan.FromSeconds(2), false)));
            _time.Advance(TimeSpan.FromSeconds(2));
        }
        await pending.Soon();
        Assert.That((_calls.Count("plugin", operation), _calls.Count("plugin", "open")), Is.EqualTo((3, 1)));
    }

    [Test]
    public async Task The_last_error_is_returned_when_the_tries_are_used_up()
    {
        var errors = new Queue<NbdError>([NbdError.IoError, NbdError.OutOfMemory, NbdError.Shutdown]);
        _plugin.Script.Fail("read", _ => new NbdException(errors.Dequeue(), "on purpose"));
        await using NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task pending = CallAsync(disk, "read");
        await _time.AdvanceUntilAsync(pending);
        Assert.That(TestData.Failure(() => pending).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(errors, Is.Empty);
    }

    [Test]
    public async Task A_request_that_succeeds_is_passed_on_at_once()
    {
        await using NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        foreach (string operation in Operations)
        {
            Assert.That(CallAsync(disk, operation).IsCompletedSuccessfully, operation);
        }
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [TestCase(NbdError.NoSpace)]
    [TestCase(NbdError.PermissionDenied)]
    [TestCase(NbdError.InvalidArgument)]
    public async Task What_time_does_not_cure_fails_at_once_unless_the_host_thinks_otherwise(NbdError error)
    {
        _plugin.Script.Fail("write", times: 2, error);
        await using (NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time }))
        {
            await using NextContext disk = await chain.OpenAsync();
            Assert.That(TestData.Failure(() => CallAsync(disk, "write")).Error, Is.EqualTo(error));
        }
        await using (NbdBackend chain = Compose(new RetryRequestFilter
        {
            ShouldRetry = e => ((NbdException)e).Error == error,
            RetryDelay = TimeSpan.Zero,
            TimeProvider = _time,
        }))
        {
            await using NextContext disk = await chain.OpenAsync();
            Task pending = CallAsync(disk, "write");
            await _time.AdvanceUntilAsync(pending);
            await pending;
        }
    }

    [Test]
    public async Task A_fast_zero_that_is_declined_is_not_made_again()
    {
        _plugin.Script.Fail("zero", error: NbdError.NotSupported);
        await using NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            TestData.Failure(() => disk.ZeroAsync(0, 512, RequestFlags.FastZero, default).AsTask()).Error, Is.EqualTo(NbdError.NotSupported));
        Assert.That(_calls.Count("plugin", "zero"), Is.EqualTo(1));
    }

    [Test]
    public async Task What_a_failed_attempt_said_about_extents_is_forgotten()
    {
        int calls = 0;
        _plugin.Extents = (offset, length, list) =>
        {
            list.Add(offset, 100, ++calls == 1 ? ExtentStatus.Hole : ExtentStatus.Data);
            if (calls == 1)
            {
                throw new NbdException(NbdError.IoError, "half way");
            }
            list.Add(offset + 100, length - 100, ExtentStatus.Zero);
        };
        await using NbdBackend chain = Compose(new RetryRequestFilter { RetryDelay = TimeSpan.Zero, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(0, 4096);
        await _time.AdvanceUntilAsync(disk.ExtentsAsync(0, 4096, RequestFlags.None, extents, default).AsTask());
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, 100, ExtentStatus.Data), new Extent(100, 3996, ExtentStatus.Zero) }));
    }

    [TestCase("open")]
    [TestCase("info")]
    public async Task An_open_is_tried_again_too_unless_told_not_to(string callback)
    {
        _plugin.Script.Fail(callback, times: 2);
        await using (NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time }))
        {
            Task<NextContext> opening = chain.OpenAsync("name").AsTask();
            await _time.AdvanceUntilAsync(opening);
            await using NextContext disk = await opening;
            Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(3));
            await CallAsync(disk, "read");
        }
        _calls.AssertBalanced();
        _plugin.Script.Fail(callback, times: 1);
        await using (NbdBackend chain = Compose(new RetryRequestFilter { RetryOpen = false, TimeProvider = _time }))
        {
            TestData.Failure(() => chain.OpenAsync("name").AsTask());
        }
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_request_that_waits_is_given_up_when_its_client_leaves()
    {
        _plugin.Script.Fail("read");
        await using NbdBackend chain = Compose(new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        using var gone = new CancellationTokenSource();
        Task pending = disk.ReadAsync(new byte[1], 0, gone.Token).AsTask();
        await _time.WaitForTimersAsync();
        await gone.CancelAsync();
        Assert.That(TestData.Failure(() => pending).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task A_request_that_waits_holds_up_no_other_even_if_the_layer_below_is_serialized()
    {
        var plugin = new RecordingPlugin(_calls) { ThreadModel = ThreadModel.SerializeAllRequests };
        plugin.Script.Fail("write", times: 1);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new RetryRequestFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task write = CallAsync(disk, "write");
        await _time.WaitForTimersAsync();
        await CallAsync(disk, "read").Soon();
        Assert.That(write.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(2));
        await write.Soon();
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new RetryRequestFilter { Retries = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RetryRequestFilter { RetryDelay = TimeSpan.FromDays(50) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RetryRequestFilter { Errors = null! }, Throws.ArgumentNullException);
    }

    private NbdBackend Compose(RetryRequestFilter filter) => NbdBackend.Compose(_plugin, filter);

    private static Task CallAsync(NextContext disk, string operation) => (operation switch
    {
        "read" => disk.ReadAsync(new byte[4], 0, default),
        "write" => disk.WriteAsync(new byte[4], 0, RequestFlags.None, default),
        "flush" => disk.FlushAsync(default),
        "trim" => disk.TrimAsync(0, 4, RequestFlags.None, default),
        "zero" => disk.ZeroAsync(0, 4, RequestFlags.None, default),
        "cache" => disk.CacheAsync(0, 4, default),
        _ => disk.ExtentsAsync(0, 4, RequestFlags.None, new ExtentList(0, 4), default),
    }).AsTask();
}
