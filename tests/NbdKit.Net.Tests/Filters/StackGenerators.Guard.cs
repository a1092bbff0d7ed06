using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// Filters that count, judge, limit or hold up requests.
internal static partial class StackGenerators
{
    private static CountFilter Count(StackModel model, Random random)
    {
        SeeRequests(model);
        return new CountFilter();
    }

    private static PolicyFilter Policy(StackModel model, Random random)
    {
        SeeRequests(model);
        model.Change(info => info with { CanExtents = true });
        int seen = 0;
        return new PolicyFilter
        {
            Decide = random.Next(3) == 0
                ? null
                : (ref PolicyRequest request) =>
                {
                    // Told as they are, but some as changed.
                    if (request.Operation == RequestOperation.Write && Interlocked.Increment(ref seen) % 2 == 0)
                    {
                        request.Data = request.Data.ToArray();
                    }
                    return null;
                },
        };
    }

    // Nothing that a random history is told about may be reason to stop; whether it is looked for it is.
    private static ExitwhenFilter Exitwhen(StackModel model, Random random)
        => new() { Events = [NbdExitEvent.When("never", _ => new(false))], Poll = TimeSpan.FromHours(1) };

    private static QuotaFilter Quota(StackModel model, Random random)
    {
        SeeRequests(model);
        return new QuotaFilter { Read = random.Next(2) == 0 ? null : 1L << 40, Total = random.Next(2) == 0 ? null : 1L << 41 };
    }

    private static RetryRequestFilter RetryRequest(StackModel model, Random random)
    {
        SeeRequests(model);
        return new RetryRequestFilter { Retries = random.Next(3), RetryDelay = TimeSpan.Zero };
    }

    private static SpinningFilter Spinning(StackModel model, Random random)
    {
        SeeRequests(model);
        model.Change(info => info with { IsRotational = true });
        return new SpinningFilter
        {
            Heads = random.Next(1, 65),
            SeparateHeads = random.Next(2) == 0,
            TimeProvider = new HastyTimeProvider(),
        };
    }

    private static StatsFilter Stats(StackModel model, Random random)
    {
        SeeRequests(model);
        return new StatsFilter();
    }

    /// <summary>What a filter that sees requests as they were made says of them.</summary>
    private static void SeeRequests(StackModel model) => model.Change(info => info with
    {
        CanZero = info.CanZero == Support.Emulate ? Support.Native : info.CanZero,
        CanCache = info.CanCache == Support.Emulate ? Support.Native : info.CanCache,
        CanFua = info is { CanFua: Support.Emulate, CanFlush: true } ? Support.Native : info.CanFua,
    });
}
