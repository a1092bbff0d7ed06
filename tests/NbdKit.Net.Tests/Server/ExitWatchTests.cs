using Microsoft.Extensions.Logging.Abstractions;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class ExitWatchTests
{
    private readonly FakeTimeProvider _time = new();
    private readonly TaskCompletionSource _exited = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile int _clients;

    [Test]
    public async Task What_happened_before_the_start_waits_for_the_client_that_is_there_by_then()
    {
        _clients = 1;
        await using ExitWatch watch = Watch(NbdExitEvent.When("now", _ => new(true)));
        await watch.StartAsync(NullLogger.Instance, default);
        await _time.WaitForTimersAsync();
        Assert.That(_exited.Task.IsCompleted, Is.False);
        _clients = 0;
        watch.Wake();
        await _exited.Task.Soon();
    }

    [Test]
    public async Task A_client_that_leaves_before_anybody_waits_for_that_is_noticed()
    {
        int asked = 0;
        await using var watch = new ExitWatch(
            [NbdExitEvent.When("now", _ => new(true))],
            TimeSpan.FromMinutes(1),
            _time,
            () => Interlocked.Increment(ref asked) == 1 ? 1 : 0,
            () => _exited.TrySetResult());
        await watch.StartAsync(NullLogger.Instance, default);
        await _exited.Task.Soon();
    }

    [Test]
    public async Task It_watches_although_the_starter_gave_up()
    {
        bool happened = false;
        await using ExitWatch watch = Watch(NbdExitEvent.When("later", token =>
        {
            token.ThrowIfCancellationRequested();
            return new(Volatile.Read(ref happened));
        }));
        using var gone = new CancellationTokenSource();
        await gone.CancelAsync();
        Assert.That(async () => await watch.StartAsync(NullLogger.Instance, gone.Token), Throws.InstanceOf<OperationCanceledException>());
        Volatile.Write(ref happened, true);
        watch.Wake();
        await _exited.Task.Soon();
    }

    [Test]
    public async Task An_event_that_hangs_keeps_a_client_for_a_while_and_the_others_not_at_all()
    {
        var answer = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        int looks = 0;
        CancellationToken told = default;
        ExitWatch watch = Watch(NbdExitEvent.When("hangs", token =>
        {
            looks++;
            told = token;
            return new(answer.Task);
        }));
        _clients = 1;
        Task<bool> first = watch.IsExitingAsync(default).AsTask();
        await _time.WaitForTimersAsync();
        _time.Advance(TimeSpan.FromSeconds(29));
        Assert.That(first.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.That(await first.Soon(), Is.False);
        Assert.That((looks, told.IsCancellationRequested), Is.EqualTo((1, true)));
        Assert.That(await watch.IsExitingAsync(default).Soon(), Is.False, "it is not asked again while it still looks");
        Assert.That(looks, Is.EqualTo(1));
        answer.SetResult(true);
        Assert.That(await watch.IsExitingAsync(default).Soon(), Is.True);
        await watch.DisposeAsync();
    }

    [Test]
    public async Task An_event_that_hangs_holds_up_neither_the_end_nor_whoever_gives_up()
    {
        var never = new TaskCompletionSource<bool>();
        ExitWatch watch = Watch(NbdExitEvent.When("hangs", _ => new(never.Task)));
        using var leaving = new CancellationTokenSource();
        Task starting = watch.StartAsync(NullLogger.Instance, leaving.Token).AsTask();
        await leaving.CancelAsync();
        Assert.That(async () => await starting.Soon(), Throws.InstanceOf<OperationCanceledException>());
        await watch.DisposeAsync().Soon();
    }

    private ExitWatch Watch(NbdExitEvent awaited)
        => new([awaited], TimeSpan.FromMinutes(1), _time, () => _clients, () => _exited.TrySetResult());
}
