using System.Diagnostics;

namespace NbdKit.Faults.Hostile;

/// <summary>
/// How late this machine is: the most by which a thread that does nothing but sleep has woken too late. Limits of time are widened
/// by that, and by nothing else: what others use the processors for, or that the machine stood still, is no fault of a server,
/// but load that a row makes itself does not make such a thread late.
/// </summary>
internal sealed class MachineLag
{
    private static readonly TimeSpan Nap = TimeSpan.FromMilliseconds(10);
    private static readonly MachineLag Instance = new();

    private long _longest;

    private MachineLag() => new Thread(Watch) { IsBackground = true, Name = "machine lag" }.Start();

    /// <summary>The longest since it was asked for first, at the begin of the row.</summary>
    public static TimeSpan Longest => TimeSpan.FromTicks(Volatile.Read(ref Instance._longest));

    private void Watch()
    {
        while (true)
        {
            long begin = Stopwatch.GetTimestamp();
            Thread.Sleep(Nap);
            long late = (Stopwatch.GetElapsedTime(begin) - Nap).Ticks;
            if (late > _longest)
            {
                Volatile.Write(ref _longest, late);
            }
        }
    }
}
