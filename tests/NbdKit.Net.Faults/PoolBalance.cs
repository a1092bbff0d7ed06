using NbdKit.Buffers;
using NbdKit.Server;

namespace NbdKit.Faults;

/// <summary>Whether a server or client that serves nobody any more has given back what it took.</summary>
/// <remarks>
/// Of what was made, all lies in its pool, or as much as the pool keeps: so many can be taken out without that another is made, and
/// none twice. Arrays of the shared pool are counted elsewhere, for all that a process does.
/// </remarks>
internal static class PoolBalance
{
    public static void Check(ServerCore core)
    {
        Require(core.Budget.Held == 0, $"{core.Budget.Held} bytes of the budget are held");
        Require(core.Payloads.LargeInUse == 0, $"{core.Payloads.LargeInUse} large arrays are in use");
        Check(core.Slabs);
        Check("loans", ServerCore.LoansRetained, () => core.LoanPolicy.Made, core.Loans.Get, core.Loans.Return);
        Check("requests", ServerCore.RequestsRetained, () => core.PendingRequestPolicy.Made, core.PendingRequests.Get, core.PendingRequests.Return);
    }

    public static void Check(SlabPool slabs)
        => Check(
            "slabs",
            SlabPool.Retained,
            () => slabs.Made,
            () =>
            {
                Slab slab = slabs.Rent();
                Require(slab.IsSole, "a slab lies in the pool that somebody uses");
                return slab;
            },
            slab => slab.Release());

    private static void Check<T>(string what, int most, Func<int> made, Func<T> take, Action<T> give)
        where T : class
    {
        var taken = new HashSet<T>(ReferenceEqualityComparer.Instance);
        int before = made();
        for (int i = 0; i < Math.Min(before, most); i++)
        {
            Require(taken.Add(take()), $"one of the {what} lies in the pool twice");
        }
        Require(made() == before, $"{made() - before} of {before} {what} are in use");
        foreach (T one in taken)
        {
            give(one);
        }
    }

    private static void Require(bool condition, string otherwise)
    {
        if (!condition)
        {
            throw new InvalidOperationException(otherwise + " when nobody is served");
        }
    }
}
