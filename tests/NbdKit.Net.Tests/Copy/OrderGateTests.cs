using NbdKit.Copy;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Copy;

public sealed class OrderGateTests
{
    [Test]
    public async Task All_come_through_in_order_whenever_they_arrive()
    {
        const int workers = 7;
        var gate = new OrderGate(workers);
        var passed = new List<long>();
        var random = new Random(3);
        long next = -1;
        async Task WorkAsync()
        {
            var turn = new OrderGate.Turn();
            while (true)
            {
                long sequence;
                bool late;
                lock (random)
                {
                    sequence = ++next;
                    late = random.Next(2) == 0;
                }
                if (sequence >= 2000)
                {
                    return;
                }
                if (late)
                {
                    await Task.Yield();
                }
                await gate.WaitAsync(sequence, turn);
                passed.Add(sequence);
                gate.Advance();
            }
        }
        await Task.WhenAll(Enumerable.Range(0, workers).Select(_ => Task.Run(WorkAsync))).Soon();
        Assert.That(passed, Is.EqualTo(Enumerable.Range(0, 2000).Select(i => (long)i)));
    }

    [Test]
    public void Who_waits_when_it_ends_is_sent_away_and_so_is_who_comes_later()
    {
        var gate = new OrderGate(4);
        Task waiting = gate.WaitAsync(2, new OrderGate.Turn()).AsTask();
        Assert.That(waiting.IsCompleted, Is.False);
        gate.Abort();
        Assert.That(async () => await waiting.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(() => gate.WaitAsync(0, new OrderGate.Turn()), Throws.InstanceOf<OperationCanceledException>());
    }
}
