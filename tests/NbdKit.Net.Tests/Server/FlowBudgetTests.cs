using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

public sealed class FlowBudgetTests
{
    [Test]
    public void Requests_are_counted()
    {
        var budget = new FlowBudget(2, 100, new ServerBudget(1000));
        budget.BeginRequest();
        Assert.That(budget.HasRoom(0));
        budget.BeginRequest();
        Assert.That((budget.HasRoom(0), budget.Requests), Is.EqualTo((false, 2)));
        budget.EndRequest();
        Assert.That(budget.HasRoom(0));
    }

    [Test]
    public void Bytes_are_counted_and_a_single_request_is_always_let_through()
    {
        var budget = new FlowBudget(10, 100, new ServerBudget(1000));
        Assert.That(budget.HasRoom(10_000), "nothing is held");
        budget.Take(60);
        Assert.That((budget.HasRoom(40), budget.HasRoom(41)), Is.EqualTo((true, false)));
        budget.Take(60);
        Assert.That(budget.HasRoom(1), Is.False);
        budget.Give(120);
        Assert.That(budget.HasRoom(10_000));
    }

    [Test]
    public void A_request_of_no_bytes_needs_room_only_for_itself()
    {
        var server = new ServerBudget(100);
        var other = new FlowBudget(10, 1000, server);
        other.Take(100);
        var budget = new FlowBudget(10, 1000, server);
        Assert.That(budget.HasRoom(0));
        Assert.That(budget.HasRoom(1), Is.False);
    }

    [Test]
    public void Those_who_take_all_they_can_get_leave_room_for_small_requests_of_others()
    {
        const int limit = 512 << 20;
        var server = new ServerBudget(limit);
        for (int i = 0; i < 100; i++)
        {
            var greedy = new FlowBudget(1000, limit, server);
            for (int bytes = 32 << 20; bytes > 0; bytes /= 2)
            {
                if (greedy.HasRoom(bytes))
                {
                    greedy.Take(bytes);
                }
            }
        }
        Assert.That(new FlowBudget(1, limit, server).HasRoom(4096));
    }

    [Test, Property("Threat", "P14")]
    public void Of_two_who_see_the_same_room_one_is_admitted()
    {
        const long Limit = 512 << 20;
        var server = new ServerBudget(Limit);
        FlowBudget[] budgets = [.. Enumerable.Range(0, 64).Select(_ => new FlowBudget(64, Limit, server))];
        // None of them has begun yet.
        Assert.That(budgets.Count(budget => budget.TryAdmit(Limit / 4)), Is.EqualTo(3), "a sixteenth is kept for the small");
        budgets[0].Settle();
        Assert.That(budgets.Count(budget => budget.TryAdmit(Limit / 4)), Is.EqualTo(1));
    }

    [Test]
    public void What_was_admitted_is_held_until_the_request_has_begun()
    {
        var server = new ServerBudget(1000 << 10);
        var budget = new FlowBudget(10, 1000 << 10, server);
        Assert.That(budget.TryAdmit(300 << 10));
        budget.Take(300 << 10);
        Assert.That(budget.HasRoom(200 << 10), Is.False, "both are counted");
        budget.Settle();
        budget.Settle();
        Assert.That((budget.HasRoom(200 << 10), budget.HasRoom(500 << 10)), Is.EqualTo((true, false)));
        budget.Give(300 << 10);
        Assert.That((budget.TryAdmit(1 << 30), server.HasRoom(0, 1)), Is.EqualTo((true, false)), "a single one is always let through");
        budget.Settle();
        Assert.That(server.HasRoom(0, 900 << 10));
    }

    [Test]
    public async Task A_wait_ends_with_whatever_makes_room()
    {
        var server = new ServerBudget(100);
        var other = new FlowBudget(10, 1000, server);
        var budget = new FlowBudget(1, 100, server);

        budget.BeginRequest();
        Task forRequest = budget.WaitAsync(1).AsTask();
        Assert.That(forRequest.IsCompleted, Is.False);
        budget.EndRequest();
        await forRequest.Soon();

        budget.Take(100);
        Task forBytes = budget.WaitAsync(1).AsTask();
        Assert.That(forBytes.IsCompleted, Is.False);
        budget.Give(100);
        await forBytes.Soon();

        other.Take(100);
        Task forOthers = budget.WaitAsync(50).AsTask();
        Assert.That(forOthers.IsCompleted, Is.False);
        other.Give(100);
        await forOthers.Soon();

        other.Take(100);
        Task forAnEnd = budget.WaitAsync(50).AsTask();
        budget.Wake();
        await forAnEnd.Soon();
    }

    [Test]
    public async Task What_makes_room_for_nobody_wakes_nobody()
    {
        var server = new ServerBudget(1000);
        var other = new FlowBudget(10, 1000, server);
        var budget = new FlowBudget(10, 1000, server);
        other.Take(900);
        Task wait = budget.WaitAsync(500).AsTask();
        other.Give(10);
        other.Take(10);
        other.Give(300);
        Assert.That(wait.IsCompleted, Is.False);
        other.Give(100);
        await wait.Soon();
        // It is no longer on the list, and can wait again.
        other.Take(900);
        Task again = budget.WaitAsync(500).AsTask();
        other.Give(1400);
        await again.Soon();
    }

    [Test]
    public async Task A_wait_for_a_request_of_its_own_is_not_woken_by_others()
    {
        var server = new ServerBudget(1000);
        var other = new FlowBudget(10, 1000, server);
        var budget = new FlowBudget(1, 1000, server);
        budget.BeginRequest();
        Task wait = budget.WaitAsync(1).AsTask();
        other.Take(10);
        other.Give(10);
        Assert.That(wait.IsCompleted, Is.False);
        budget.EndRequest();
        await wait.Soon();
    }

    [Test]
    public async Task A_wait_for_room_that_is_there_ends_at_once()
    {
        var budget = new FlowBudget(1, 100, new ServerBudget(100));
        await budget.WaitAsync(10).AsTask().Soon();
        await budget.WaitForRequestsAsync().AsTask().Soon();
    }

    [Test]
    public async Task Waiting_for_requests_ends_with_the_last_of_them()
    {
        var budget = new FlowBudget(10, 100, new ServerBudget(100));
        budget.BeginRequest();
        budget.BeginRequest();
        Task last = budget.WaitForRequestsAsync().AsTask();
        budget.EndRequest();
        budget.Wake();
        Assert.That(last.IsCompleted, Is.False);
        budget.EndRequest();
        await last.Soon();
    }

    [Test]
    public async Task Under_load_no_wake_up_is_lost()
    {
        var server = new ServerBudget(64);
        await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(async () =>
        {
            var budget = new FlowBudget(4, 32, server);
            var running = new List<Task>();
            for (int i = 0; i < 2000; i++)
            {
                while (!budget.HasRoom(8))
                {
                    await budget.WaitAsync(8);
                }
                budget.BeginRequest();
                budget.Take(8);
                running.Add(Task.Run(() =>
                {
                    budget.Give(8);
                    budget.EndRequest();
                }));
            }
            await budget.WaitForRequestsAsync();
            Assert.That(budget.Requests, Is.Zero);
            await Task.WhenAll(running);
        }))).Soon();
        Assert.That(server.HasRoom(0, 10_000), "all was given back");
    }

    [Test]
    public void Who_is_taken_off_the_list_just_when_he_waits_again_is_woken()
    {
        const int rounds = 50_000;
        const int grain = 23;
        var server = new ServerBudget(1000);
        var holder = new FlowBudget(10, 1000, server);
        var small = new FlowBudget(10, 1000, server);
        var budget = new FlowBudget(10, 1000, server);
        int begun = 0;
        int ended = 0;
        ValueTask wait = default;
        var waiting = new Thread(() =>
        {
            for (int i = 1; i <= rounds; i++)
            {
                WaitFor(ref begun, i, i % grain);
                wait = budget.WaitAsync(500);
                Volatile.Write(ref ended, i);
            }
        });
        waiting.Start();
        int lost = 0;
        for (int i = 1; i <= rounds; i++)
        {
            holder.Take(1000);
            // On the list, and awake; and somebody else's request is so small that every byte is of interest.
            _ = budget.WaitAsync(500);
            budget.Wake();
            _ = small.WaitAsync(1);
            Volatile.Write(ref begun, i);
            WaitFor(ref begun, i, i / grain % grain);
            holder.Give(10);
            WaitFor(ref ended, i, 0);
            holder.Give(990);
            lost += wait.IsCompleted ? 0 : 1;
            budget.Wake();
            small.Wake();
        }
        waiting.Join();
        Assert.That(lost, Is.Zero, "wake-ups lost");
    }

    /// <summary>Waits for another thread, and then a moment, without a system call: it is about nanoseconds.</summary>
    private static void WaitFor(ref int round, int value, int moment)
    {
        for (int spins = 1; Volatile.Read(ref round) != value; spins++)
        {
            if (spins % 20_000 == 0)
            {
                Thread.Yield();
            }
        }
        for (int i = 0; i < moment; i++)
        {
            Thread.SpinWait(1);
        }
    }
}
