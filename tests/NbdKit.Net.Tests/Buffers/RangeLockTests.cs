using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public class RangeLockTests
{
    [Test]
    public async Task Ranges_that_do_not_overlap_do_not_wait()
    {
        var locks = new RangeLock();
        ValueTask<RangeLock.Held> first = locks.AcquireAsync(0, 10, default);
        ValueTask<RangeLock.Held> second = locks.AcquireAsync(10, 20, default);
        Assert.That(first.IsCompletedSuccessfully && second.IsCompletedSuccessfully, Is.True);
        (await first).Dispose();
        (await second).Dispose();
    }

    [Test]
    public async Task Overlapping_ranges_come_in_the_order_in_which_they_were_asked_for()
    {
        var locks = new RangeLock();
        RangeLock.Held first = await locks.AcquireAsync(0, 10, default);
        Task<RangeLock.Held> second = locks.AcquireAsync(5, 15, default).AsTask();
        Task<RangeLock.Held> third = locks.AcquireAsync(12, 20, default).AsTask();
        Assert.That(second.IsCompleted || third.IsCompleted, Is.False);
        first.Dispose();
        RangeLock.Held held = await second.WaitAsync(TimeSpan.FromSeconds(30));
        Assert.That(third.IsCompleted, Is.False);
        held.Dispose();
        held.Dispose();
        (await third.WaitAsync(TimeSpan.FromSeconds(30))).Dispose();
    }

    [Test]
    public async Task Who_gives_up_waiting_holds_up_nobody()
    {
        var locks = new RangeLock();
        using var cancel = new CancellationTokenSource();
        RangeLock.Held first = await locks.AcquireAsync(0, 10, default);
        Task<RangeLock.Held> second = locks.AcquireAsync(5, 15, cancel.Token).AsTask();
        Task<RangeLock.Held> third = locks.AcquireAsync(12, 20, default).AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await second, Throws.InstanceOf<OperationCanceledException>());
        (await third.WaitAsync(TimeSpan.FromSeconds(30))).Dispose();
        first.Dispose();
        Assert.That(locks.AcquireAsync(0, 100, default).IsCompletedSuccessfully, Is.True);
    }

    [Test]
    public async Task Nobody_is_ever_in_a_range_with_somebody_else([Values(1, 2)] int seed)
    {
        var locks = new RangeLock();
        var owners = new int[64];
        await Task.WhenAll(Enumerable.Range(1, 8).Select(worker => Task.Run(async () =>
        {
            var random = new Random((seed * 100) + worker);
            for (int i = 0; i < 500; i++)
            {
                int first = random.Next(60);
                int end = first + random.Next(1, 5);
                using RangeLock.Held held = await locks.AcquireAsync(first, end, default);
                for (int at = first; at < end; at++)
                {
                    Assert.That(Interlocked.CompareExchange(ref owners[at], worker, 0), Is.Zero, $"seed {seed}");
                }
                if (random.Next(3) == 0)
                {
                    await Task.Yield();
                }
                for (int at = first; at < end; at++)
                {
                    Volatile.Write(ref owners[at], 0);
                }
            }
        })));
    }
}
