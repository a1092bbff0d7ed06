namespace NbdKit.Tests.Testing;

public class FakeTimeProviderTests
{
    [Test]
    public async Task A_delay_ends_when_its_time_has_come_and_not_before()
    {
        var time = new FakeTimeProvider();
        Task delay = Task.Delay(TimeSpan.FromSeconds(2), time);
        await time.WaitForTimersAsync();
        time.Advance(TimeSpan.FromSeconds(1.999));
        Assert.That(delay.IsCompleted, Is.False);
        Assert.That(time.NextTimer, Is.EqualTo(TimeSpan.FromMilliseconds(1)));
        time.Advance(TimeSpan.FromMilliseconds(1));
        await delay;
        Assert.That(time.PendingTimers, Is.Zero);
        Assert.That(time.GetTimestamp(), Is.EqualTo(TimeSpan.FromSeconds(2).Ticks));
    }

    [Test]
    public void Timers_fire_in_the_order_in_which_they_are_due()
    {
        var time = new FakeTimeProvider();
        var fired = new List<string>();
        using ITimer second = time.CreateTimer(_ => fired.Add($"b{time.GetTimestamp()}"), null, new TimeSpan(30), Timeout.InfiniteTimeSpan);
        using ITimer first = time.CreateTimer(_ => fired.Add($"a{time.GetTimestamp()}"), null, new TimeSpan(10), new TimeSpan(15));
        time.Advance(new TimeSpan(40));
        Assert.That(fired, Is.EqualTo(new[] { "a10", "a25", "b30", "a40" }));
    }

    [Test]
    public async Task Waiting_for_timers_ends_when_enough_of_them_are_pending()
    {
        var time = new FakeTimeProvider();
        Task two = time.WaitForTimersAsync(2);
        Task first = Task.Delay(TimeSpan.FromSeconds(1), time);
        Assert.That(two.IsCompleted, Is.False);
        Task second = Task.Delay(TimeSpan.FromSeconds(1), time);
        await two;
        time.Advance(TimeSpan.FromSeconds(1));
        await Task.WhenAll(first, second);
        Assert.That(time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task A_cancelled_delay_leaves_no_timer_behind()
    {
        var time = new FakeTimeProvider();
        using var cancel = new CancellationTokenSource();
        Task delay = Task.Delay(TimeSpan.FromSeconds(2), time, cancel.Token);
        await cancel.CancelAsync();
        Assert.That(async () => await delay, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(time.PendingTimers, Is.Zero);
    }
}
