using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Many requests at once, on contexts that come and go.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class RetryFilterParallelTests
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);

    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin;

    public RetryFilterParallelTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task However_many_requests_fail_the_layer_below_is_opened_again_once()
    {
        const int Requests = 100;
        _plugin.Script.Fail("read", call => call.Context == 1 ? new IOException("connection lost") : null);
        _plugin.Script.OnCall = async (_, _) => await Task.Yield();
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            Task[] reads = [.. Enumerable.Range(0, Requests).Select(_ => ReadAsync(disk))];
            await _time.WaitForTimersAsync(Requests);
            _time.Advance(TimeSpan.FromSeconds(2));
            await Task.WhenAll(reads).WaitAsync(Deadline);
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(2));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(2 * Requests));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task An_open_that_fails_is_one_attempt_of_all_who_waited_for_it()
    {
        const int Requests = 50;
        _plugin.Script.Fail("read", call => call.Context < 3 ? new IOException("connection lost") : null);
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            _plugin.Script.Fail("open", call => call.Context == 2 ? new IOException("still not there") : null);
            Task[] reads = [.. Enumerable.Range(0, Requests).Select(_ => ReadAsync(disk))];
            await _time.WaitForTimersAsync(Requests);
            _time.Advance(TimeSpan.FromSeconds(2));
            await _time.WaitForTimersAsync(Requests);
            Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(2));
            _time.Advance(TimeSpan.FromSeconds(4));
            await Task.WhenAll(reads).WaitAsync(Deadline);
        }
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(3));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_request_that_waited_longer_uses_what_was_opened_meanwhile()
    {
        _plugin.Script.Fail("read", call => call.Context == 1 ? new IOException("connection lost") : null);
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Task first = ReadAsync(disk);
        _time.Advance(TimeSpan.FromSeconds(1));
        Task second = ReadAsync(disk);
        _time.Advance(TimeSpan.FromSeconds(1));
        await first.WaitAsync(Deadline);
        Assert.That(second.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(1));
        await second.WaitAsync(Deadline);
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(2));
    }

    [Test]
    public async Task Other_requests_go_on_while_one_waits_and_while_the_old_context_is_in_use()
    {
        var slow = new TaskCompletionSource();
        var started = new TaskCompletionSource();
        _plugin.Script.OnCall = async (call, _) =>
        {
            if (call is { Callback: "read", Offset: 1000 })
            {
                started.SetResult();
                await slow.Task;
            }
        };
        _plugin.Script.Fail("read", call => call is { Context: 1, Offset: 0 } ? new IOException("bad sector") : null);
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            Task failing = ReadAsync(disk);
            Task long1 = ReadAsync(disk, 1000);
            await started.Task;
            try
            {
                // While the first waits for its second attempt, the context that it failed on serves others.
                await ReadAsync(disk, 2000).WaitAsync(Deadline);
                Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
                _time.Advance(TimeSpan.FromSeconds(2));
                // The second attempt does not wait for the request that still runs on the old context.
                await failing.WaitAsync(Deadline);
                await ReadAsync(disk, 3000).WaitAsync(Deadline);
                Assert.That(_calls.Lines, Does.Contain("plugin#2.read").And.Not.Contain("plugin#1.close"));
                Assert.That(long1.IsCompleted, Is.False);
            }
            finally
            {
                slow.SetResult();
            }
            await long1.WaitAsync(Deadline);
        }
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "read" && !call.Failed).Select(call => (call.Context, call.Offset)),
            Is.EqualTo(new[] { (1, 0L), (1, 1000L), (1, 2000L), (2, 0L), (2, 3000L) }));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task The_old_context_is_closed_before_the_new_one_is_opened_if_it_can_be()
    {
        int open = 0;
        _plugin.Script.OnCall = (call, _) => call.Callback switch
        {
            "open" when Interlocked.Increment(ref open) > 1 => throw new IOException("in use"),
            "close" => new ValueTask(Task.FromResult(Interlocked.Decrement(ref open))),
            _ => default,
        };
        _plugin.Script.Fail("read", call => call.Context == 1 ? new IOException("connection lost") : null);
        await using NbdBackend chain = Compose(new RetryFilter { Retries = 1, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task[] reads = [ReadAsync(disk), ReadAsync(disk), ReadAsync(disk)];
        _time.Advance(TimeSpan.FromSeconds(2));
        await Task.WhenAll(reads).WaitAsync(Deadline);
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(2));
    }

    [Test]
    public async Task Closing_waits_for_an_old_context_and_for_an_open_that_nobody_waits_for()
    {
        var opening = new TaskCompletionSource();
        using var gone = new CancellationTokenSource();
        _plugin.Script.Fail("read", call => call.Context == 1 ? new IOException("connection lost") : null);
        await using (NbdBackend chain = Compose())
        {
            await using NextContext disk = await chain.OpenAsync();
            _plugin.Script.OnCall = async (call, token) =>
            {
                if (call.Callback == "open")
                {
                    opening.SetResult();
                    await Task.Delay(Timeout.Infinite, token);
                }
            };
            Task read = disk.ReadAsync(new byte[10], 0, gone.Token).AsTask();
            _time.Advance(TimeSpan.FromSeconds(2));
            await opening.Task.WaitAsync(Deadline);
            await gone.CancelAsync();
            Assert.That(
                async () => await read.WaitAsync(Deadline),
                Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.Shutdown));
        }
        Assert.That(_calls.Lines, Does.Contain("plugin#2.open failed"));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_serialized_plugin_is_still_called_by_one_request_at_a_time_and_delays_hold_up_nobody(
        [Values(ThreadModel.SerializeRequests, ThreadModel.SerializeAllRequests)] ThreadModel model)
    {
        int inside = 0;
        var plugin = new RecordingPlugin(_calls) { ThreadModel = model };
        plugin.Script.OnCall = async (_, _) =>
        {
            Assert.That(Interlocked.Increment(ref inside), Is.EqualTo(1));
            await Task.Yield();
            Interlocked.Decrement(ref inside);
        };
        plugin.Script.Fail("read", call => call is { Context: 1, Offset: 0 } ? new IOException("bad sector") : null);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new RetryFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Task failing = ReadAsync(disk);
        await _time.WaitForTimersAsync();
        await Task.WhenAll(Enumerable.Range(1, 20).Select(i => ReadAsync(disk, i * 100))).WaitAsync(Deadline);
        Assert.That(failing.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(2));
        await failing.WaitAsync(Deadline);
    }

    // Every context fails at random, opens fail too, and time passes as soon as somebody waits: all requests must end well,
    // with the right bytes, and every context that was opened must be closed once.
    [Test]
    public async Task Random_failures_under_load_lose_nothing([Values(1, 2, 3)] int seed)
    {
        var random = new Random(seed);
        bool Chance(double p)
        {
            lock (random)
            {
                return random.NextDouble() < p;
            }
        }

        random.NextBytes(_plugin.Data);
        byte[] model = [.. _plugin.Data];
        var below = new RecordingFilter(_calls, "below");
        _plugin.Script.OnCall = async (_, _) => await Task.Yield();
        await using (NbdBackend chain = NbdBackend.Compose(
            _plugin, new RetryFilter { Retries = 1000, Exponential = false, TimeProvider = _time }, below))
        {
            await using NextContext disk = await chain.OpenAsync();
            _plugin.Script.Fail("open", _ => Chance(0.3) ? new IOException("open") : null);
            _plugin.Script.Fail("read", _ => Chance(0.05) ? new IOException("read") : null);
            _plugin.Script.Fail("write", _ => Chance(0.05) ? new NbdException(NbdError.Shutdown, "write") : null);
            below.Script.Fail("prepare", _ => Chance(0.1) ? new IOException("prepare") : null);
            below.Script.Fail("finalize", _ => Chance(0.1) ? new IOException("finalize") : null);
            Task work = Task.WhenAll(Enumerable.Range(0, 8).Select(worker => Task.Run(async () =>
            {
                var own = new Random((seed * 100) + worker);
                for (int i = 0; i < 100; i++)
                {
                    int offset = (worker * 8192) + own.Next(8000);
                    int length = own.Next(1, 192);
                    var buffer = new byte[length];
                    if (own.Next(2) == 0)
                    {
                        own.NextBytes(buffer);
                        await disk.WriteAsync(buffer, offset, RequestFlags.None, default);
                        buffer.CopyTo(model, offset);
                    }
                    else
                    {
                        await disk.ReadAsync(buffer, offset, default);
                        Assert.That(buffer.AsSpan().SequenceEqual(model.AsSpan(offset, length)), Is.True, $"seed {seed}, worker {worker}, request {i}");
                    }
                }
            })));
            while (!work.IsCompleted)
            {
                await Task.WhenAny(work, _time.WaitForTimersAsync());
                _time.Advance(TimeSpan.FromSeconds(2));
            }
            await work;
            _plugin.Script.Succeed("open");
            below.Script.Succeed("prepare");
        }
        Assert.That(_plugin.Data, Is.EqualTo(model), $"seed {seed}");
        Assert.That(_calls.Count("plugin", "open"), Is.GreaterThan(5), $"seed {seed}");
        _calls.AssertBalanced();
    }

    private NbdBackend Compose(RetryFilter? filter = null)
        => NbdBackend.Compose(_plugin, filter ?? new RetryFilter { TimeProvider = _time });

    private static Task ReadAsync(NextContext disk, long offset = 0) => disk.ReadAsync(new byte[10], offset, default).AsTask();
}
