using NbdKit.Layers;

namespace NbdKit.Tests.Layers;

public class RangeLockTests
{
    private readonly RangeLock _lock = new();

    private Task<RangeLock.Holder> Enter(long start, long end, bool exclusive, CancellationToken cancellationToken = default)
        => _lock.EnterAsync(start, end, exclusive, cancellationToken).AsTask();

    [TestCase(0, 10, false, 0, 10, false, true)]
    [TestCase(0, 10, true, 0, 10, false, false)]
    [TestCase(0, 10, false, 0, 10, true, false)]
    [TestCase(0, 10, true, 9, 20, true, false)]
    [TestCase(0, 10, true, 10, 20, true, true)]
    [TestCase(10, 20, true, 0, 10, true, true)]
    [TestCase(10, 20, true, 0, 11, false, false)]
    [TestCase(0, 100, false, 50, 51, true, false)]
    [TestCase(0, long.MaxValue, true, long.MaxValue - 1, long.MaxValue, false, false)]
    public async Task Ranges_wait_for_each_other_if_they_overlap_and_one_is_exclusive(
        long start1, long end1, bool exclusive1, long start2, long end2, bool exclusive2, bool together)
    {
        RangeLock.Holder one = await Enter(start1, end1, exclusive1);
        Task<RangeLock.Holder> two = Enter(start2, end2, exclusive2);
        Assert.That(two.IsCompleted, Is.EqualTo(together));
        _lock.Exit(one);
        _lock.Exit(await two);
        Assert.That(_lock.Count, Is.Zero);
    }

    [Test]
    public async Task Trying_to_enter_never_waits()
    {
        var locks = new RangeLock();
        RangeLock.Holder shared = await locks.EnterAsync(0, 10, exclusive: false, default);
        Assert.That(locks.TryEnter(9, 20, exclusive: true), Is.Null);
        RangeLock.Holder? second = locks.TryEnter(9, 20, exclusive: false);
        RangeLock.Holder? apart = locks.TryEnter(20, 30, exclusive: true);
        Assert.That((second, apart), Is.Not.EqualTo((shared, shared)));
        Assert.That(locks.TryEnter(29, 30, exclusive: false), Is.Null);
        Assert.That(locks.Count, Is.EqualTo(3));
        locks.Exit(shared);
        second!.Dispose();
        apart!.Dispose();
        Assert.That(locks.Count, Is.Zero);
        locks.TryEnter(0, 30, exclusive: true)!.Dispose();
    }

    [Test]
    public async Task Who_comes_later_does_not_overtake_one_that_waits_for_the_same_bytes()
    {
        RangeLock.Holder shared = await Enter(0, 10, exclusive: false);
        Task<RangeLock.Holder> exclusive = Enter(5, 15, exclusive: true);
        Task<RangeLock.Holder> later = Enter(14, 20, exclusive: false);
        Task<RangeLock.Holder> elsewhere = Enter(15, 20, exclusive: false);
        Assert.That((exclusive.IsCompleted, later.IsCompleted, elsewhere.IsCompleted), Is.EqualTo((false, false, true)));
        _lock.Exit(shared);
        RangeLock.Holder held = await exclusive;
        Assert.That(later.IsCompleted, Is.False);
        _lock.Exit(held);
        _lock.Exit(await later);
        _lock.Exit(await elsewhere);
        Assert.That(_lock.Count, Is.Zero);
    }

    [Test]
    public async Task Who_waits_for_several_enters_after_the_last_of_them()
    {
        RangeLock.Holder a = await Enter(0, 10, exclusive: false);
        RangeLock.Holder b = await Enter(10, 20, exclusive: false);
        Task<RangeLock.Holder> both = Enter(5, 15, exclusive: true);
        _lock.Exit(b);
        Assert.That(both.IsCompleted, Is.False);
        _lock.Exit(a);
        _lock.Exit(await both);
    }

    [Test]
    public async Task Who_gives_up_waiting_holds_nobody_up()
    {
        RangeLock.Holder first = await Enter(0, 10, exclusive: true);
        using var cancel = new CancellationTokenSource();
        Task<RangeLock.Holder> impatient = Enter(0, 10, exclusive: true, cancel.Token);
        Task<RangeLock.Holder> patient = Enter(0, 10, exclusive: true);
        await cancel.CancelAsync();
        Assert.That(async () => await impatient, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(_lock.Count, Is.EqualTo(2));
        Assert.That(patient.IsCompleted, Is.False);
        _lock.Exit(first);
        _lock.Exit(await patient);
        Assert.That(_lock.Count, Is.Zero);
    }

    [Test]
    public async Task Parallel_holders_never_overlap_an_exclusive_one([Values(1, 2, 3)] int seed)
    {
        const int Slots = 16;
        int[] readers = new int[Slots];
        int[] writers = new int[Slots];
        int clashes = 0;
        await Task.WhenAll(Enumerable.Range(0, 8).Select(worker => Task.Run(async () =>
        {
            var random = new Random((seed * 100) + worker);
            for (int i = 0; i < 500; i++)
            {
                int start = random.Next(Slots);
                int end = random.Next(start, Slots) + 1;
                bool exclusive = random.Next(2) == 0;
                int[] own = exclusive ? writers : readers;
                RangeLock.Holder holder = await Enter(start, end, exclusive);
                for (int s = start; s < end; s++)
                {
                    int mine = Interlocked.Increment(ref own[s]);
                    if (exclusive ? mine != 1 || Volatile.Read(ref readers[s]) != 0 : Volatile.Read(ref writers[s]) != 0)
                    {
                        Interlocked.Increment(ref clashes);
                    }
                }
                if (random.Next(4) == 0)
                {
                    await Task.Yield();
                }
                for (int s = start; s < end; s++)
                {
                    Interlocked.Decrement(ref own[s]);
                }
                _lock.Exit(holder);
            }
        })));
        Assert.That((clashes, _lock.Count), Is.EqualTo((0, 0)), $"seed {seed}");
    }
}
