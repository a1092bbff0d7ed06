namespace NbdKit.Transports;

/// <summary>
/// Since when a connection waits for its client in the middle of something. Written by the connection, read by the server's
/// watch; costs a clock reading per wait and no timer.
/// </summary>
internal sealed class StallClock(TimeProvider timeProvider)
{
    private long _since;

    public void Progress() => Volatile.Write(ref _since, Math.Max(1, timeProvider.GetTimestamp()));

    public void Stop() => Volatile.Write(ref _since, 0);

    /// <summary>If it runs, it begins anew.</summary>
    public void Forgive()
    {
        long since = Volatile.Read(ref _since);
        if (since != 0)
        {
            Interlocked.CompareExchange(ref _since, Math.Max(1, timeProvider.GetTimestamp()), since);
        }
    }

    public bool IsStalled(TimeSpan limit)
    {
        long since = Volatile.Read(ref _since);
        return since != 0 && limit != Timeout.InfiniteTimeSpan && timeProvider.GetElapsedTime(since) >= limit;
    }
}
