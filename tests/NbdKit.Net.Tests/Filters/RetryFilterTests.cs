using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class RetryFilterTests
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);
    private static readonly string[] Operations = ["read", "write", "flush", "trim", "zero", "cache", "extents"];

    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin;

    public RetryFilterTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task A_request_that_fails_is_made_again_on_a_new_context([ValueSource(nameof(Operations))] string operation)
    {
        _plugin.Script.Fail(operation, 1);
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync("name");
            Task pending = Call(disk, operation);
            Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(2)));
            await PassAsync(2);
            await pending.WaitAsync(Deadline);
        }
        Assert.That(_calls.Lines, Is.EqualTo(new[]
        {
            "plugin.ready", "plugin.start", "plugin#1.open", "plugin#1.info",
            $"plugin#1.{operation}", $"plugin#1.{operation} failed",
            "plugin#1.close", "plugin#2.open", "plugin#2.info", $"plugin#2.{operation}",
            "plugin#2.close", "plugin.cleanup",
        }));
        Assert.That(_calls.Calls.Where(call => call.Callback == "open").Select(call => call.ExportName), Is.All.EqualTo("name"));
    }

    [Test]
    public async Task A_request_that_succeeds_is_passed_on_at_once()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        foreach (string operation in Operations)
        {
            Assert.That(Call(disk, operation).IsCompletedSuccessfully, Is.True, operation);
        }
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task The_delay_doubles_and_the_last_error_is_returned([Values] bool exponential)
    {
        var errors = new Queue<NbdError>([NbdError.IoError, NbdError.OutOfMemory, NbdError.IoError, NbdError.Shutdown]);
        _plugin.Script.Fail("read", _ => new NbdException(errors.Dequeue(), "on purpose"));
        await using NbdBackend chain = Compose(new RetryFilter { Retries = 3, Exponential = exponential, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task pending = Call(disk, "read");
        foreach (int seconds in exponential ? new[] { 2, 4, 8 } : [2, 2, 2])
        {
            await _time.WaitForTimersAsync();
            Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(seconds)));
            _time.Advance(TimeSpan.FromSeconds(seconds));
        }
        Assert.That(await ErrorOf(pending), Is.EqualTo(NbdError.Shutdown));
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(4));
    }

    [Test]
    public async Task After_the_last_retry_a_later_request_tries_again()
    {
        _plugin.Script.Fail("read");
        await using NbdBackend chain = Compose(new RetryFilter { Retries = 1, RetryDelay = TimeSpan.FromMilliseconds(10), TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task first = Call(disk, "read");
        await _time.WaitForTimersAsync();
        // The new context cannot be opened: there is none when the retries are used up.
        _plugin.Script.Fail("open");
        _time.Advance(TimeSpan.FromMilliseconds(10));
        Assert.That(await ErrorOf(first), Is.EqualTo(NbdError.Shutdown));

        _plugin.Script.Succeed("open");
        _plugin.Script.Succeed("read");
        Task second = Call(disk, "read");
        await _time.WaitForTimersAsync();
        _time.Advance(TimeSpan.FromMilliseconds(10));
        await second.WaitAsync(Deadline);
        Assert.That(Call(disk, "read").IsCompletedSuccessfully, Is.True);
    }

    [Test]
    public async Task Without_retries_nothing_is_opened_again()
    {
        _plugin.Script.Fail("read", 1);
        await using NbdBackend chain = Compose(new RetryFilter { Retries = 0, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await ErrorOf(Call(disk, "read")), Is.EqualTo(NbdError.IoError));
        await Call(disk, "read");
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
    }

    [Test]
    public async Task An_open_that_fails_counts_as_an_attempt()
    {
        _plugin.Script.Fail("read", 1);
        await using NbdBackend chain = Compose();
        await using (NextContext disk = await chain.OpenAsync())
        {
            int failures = 2;
            _plugin.Script.Fail("open", _ => failures-- > 0 ? new IOException("unreachable") : null);
            Task pending = Call(disk, "read");
            await PassAsync(2);
            await PassAsync(4);
            await PassAsync(8);
            await pending.WaitAsync(Deadline);
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(4));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_context_that_cannot_be_prepared_is_closed()
    {
        _plugin.Script.Fail("read", 1);
        var below = new RecordingFilter(_calls, "below");
        await using (NbdBackend chain = NbdBackend.Compose(_plugin, new RetryFilter { TimeProvider = _time }, below))
        {
            await using NextContext disk = await chain.OpenAsync();
            below.Script.Fail("prepare", 1);
            Task pending = Call(disk, "read");
            await PassAsync(2);
            await PassAsync(4);
            await pending.WaitAsync(Deadline);
        }
        Assert.That(_calls.Count("below", "open"), Is.EqualTo(3));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task The_first_open_is_tried_again_too()
    {
        int failures = 2;
        _plugin.Script.Fail("open", _ => failures-- > 0 ? new IOException("not there yet") : null);
        _plugin.Script.Fail("info", 1);
        await using (NbdBackend chain = Compose())
        {
            Task<NextContext> opening = chain.OpenAsync().AsTask();
            await PassAsync(2);
            await PassAsync(4);
            await PassAsync(8);
            await using NextContext disk = await opening.WaitAsync(Deadline);
            await Call(disk, "read");
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(4));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task The_first_open_is_not_tried_again_where_that_is_not_wanted_or_makes_no_sense([Values] bool wanted)
    {
        _plugin.Script.Fail("open", 1, wanted ? NbdError.InvalidArgument : NbdError.IoError);
        await using NbdBackend chain = Compose(new RetryFilter { RetryOpen = wanted, TimeProvider = _time });
        Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>());
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
    }

    [TestCase(NbdError.PermissionDenied, false)]
    [TestCase(NbdError.IoError, true)]
    [TestCase(NbdError.OutOfMemory, true)]
    [TestCase(NbdError.InvalidArgument, false)]
    [TestCase(NbdError.NoSpace, false)]
    [TestCase(NbdError.Overflow, false)]
    [TestCase(NbdError.Shutdown, true)]
    public async Task Only_errors_that_opening_again_may_cure_are_retried(NbdError error, bool retried)
    {
        _plugin.Script.Fail("write", 1, error);
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Task pending = Call(disk, "write");
        if (retried)
        {
            await PassAsync(2);
            await pending.WaitAsync(Deadline);
        }
        else
        {
            Assert.That(await ErrorOf(pending), Is.EqualTo(error));
        }
    }

    [Test]
    public async Task A_host_decides_what_is_retried()
    {
        await using NbdBackend chain = Compose(new RetryFilter { ShouldRetry = e => e is TimeoutException, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        _plugin.Script.Fail("read", _ => new IOException("not this"));
        Assert.That(async () => await Call(disk, "read"), Throws.InstanceOf<IOException>());
        int failures = 1;
        _plugin.Script.Fail("read", _ => failures-- > 0 ? new TimeoutException() : null);
        Task pending = Call(disk, "read");
        await PassAsync(2);
        await pending.WaitAsync(Deadline);
    }

    [Test]
    public async Task A_client_that_leaves_ends_the_delay_with_ESHUTDOWN()
    {
        _plugin.Script.Fail("read");
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            using var gone = new CancellationTokenSource();
            Task pending = Call(disk, "read", gone.Token);
            await _time.WaitForTimersAsync();
            await gone.CancelAsync();
            Assert.That(await ErrorOf(pending), Is.EqualTo(NbdError.Shutdown));
            Assert.That(_time.PendingTimers, Is.Zero);
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_cancelled_request_is_not_retried()
    {
        using var gone = new CancellationTokenSource();
        _plugin.Script.OnCall = async (call, token) =>
        {
            if (call.Callback == "read")
            {
                await Task.Delay(Timeout.Infinite, token);
            }
        };
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Task pending = Call(disk, "read", gone.Token);
        await gone.CancelAsync();
        Assert.That(async () => await pending, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task What_a_failed_attempt_says_of_extents_is_forgotten()
    {
        int attempts = 0;
        _plugin.Extents = (offset, length, list) =>
        {
            if (attempts++ == 0)
            {
                list.Add(offset, 10, ExtentStatus.Hole);
                throw new IOException("half way");
            }
            list.Add(offset, length, ExtentStatus.Zero);
        };
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(100, disk.Info.Size);
        Task pending = disk.ExtentsAsync(100, 200, RequestFlags.None, extents, default).AsTask();
        await PassAsync(2);
        await pending.WaitAsync(Deadline);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(100, 200, ExtentStatus.Zero) }));
    }

    [Test]
    public void Parameters_set_the_properties()
    {
        RetryFilter filter = Create(("retries", "7"), ("retry-delay", "0.5"), ("retry-exponential", "no"), ("retry-readonly", "yes"), ("retry-open", "no"), ("retry-errors", "EIO, ENOSPC"));
        Assert.That((filter.Retries, filter.RetryDelay, filter.Exponential), Is.EqualTo((7, TimeSpan.FromMilliseconds(500), false)));
        Assert.That((filter.ReopenReadOnly, filter.RetryOpen), Is.EqualTo((true, false)));
        Assert.That(filter.Errors, Is.EqualTo(new[] { NbdError.IoError, NbdError.NoSpace }));
        RetryFilter defaults = Create();
        Assert.That((defaults.Retries, defaults.RetryDelay, defaults.Exponential), Is.EqualTo((5, TimeSpan.FromSeconds(2), true)));
        Assert.That((defaults.ReopenReadOnly, defaults.RetryOpen), Is.EqualTo((false, true)));
        Assert.That(Create(("retry-errors", "all")).Errors, Does.Contain(NbdError.InvalidArgument).And.Not.Contain(NbdError.NotSupported));
    }

    [Test]
    public void Bad_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new RetryFilter { Retries = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RetryFilter { RetryDelay = TimeSpan.FromTicks(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RetryFilter { RetryDelay = TimeSpan.FromDays(50) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RetryFilter { Errors = null! }, Throws.ArgumentNullException);
        Assert.That(() => Create(("retry-errors", "EIO,EWHAT")), Throws.ArgumentException.With.Message.Contains("EWHAT"));
    }

    private static RetryFilter Create(params (string Name, string Value)[] parameters)
        => (RetryFilter)RetryFilter.Entry.Create(
            new NbdParameters("retry", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    private NbdBackend Compose(RetryFilter? filter = null)
        => NbdBackend.Compose(_plugin, filter ?? new RetryFilter { TimeProvider = _time });

    private async Task PassAsync(int seconds)
    {
        await _time.WaitForTimersAsync();
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(seconds)));
        _time.Advance(TimeSpan.FromSeconds(seconds));
    }

    private static async Task<NbdError?> ErrorOf(Task pending)
    {
        try
        {
            await pending.WaitAsync(Deadline);
            return null;
        }
        catch (NbdException e)
        {
            return e.Error;
        }
    }

    private static Task Call(NextContext disk, string operation, CancellationToken cancellationToken = default)
        => (operation switch
        {
            "read" => disk.ReadAsync(new byte[512], 0, cancellationToken),
            "write" => disk.WriteAsync(new byte[512], 0, RequestFlags.None, cancellationToken),
            "flush" => disk.FlushAsync(cancellationToken),
            "trim" => disk.TrimAsync(0, 512, RequestFlags.None, cancellationToken),
            "zero" => disk.ZeroAsync(0, 512, RequestFlags.None, cancellationToken),
            "cache" => disk.CacheAsync(0, 512, cancellationToken),
            _ => disk.ExtentsAsync(0, 512, RequestFlags.None, new ExtentList(0, disk.Info.Size), cancellationToken),
        }).AsTask();
}
