namespace NbdKit.Server;

/// <summary>
/// Tells when the process stood still, by looks that come too late: the machine was paused or suspended, and with it the server's
/// part of every conversation. Not twice in a row: a server that is always late would have no limits.
/// </summary>
internal sealed class Standstill(TimeProvider timeProvider, TimeSpan interval)
{
    private const int LateAfter = 4;

    private long _looked;
    private bool _stood;

    /// <summary>Looks, as it is to be done once in each interval.</summary>
    /// <returns>The ticks of the clock for which the process stood still, 0 if it did not.</returns>
    public long Look()
    {
        long now = timeProvider.GetTimestamp();
        long since = _looked == 0 ? 0 : now - _looked;
        _looked = now;
        _stood = !_stood && timeProvider.GetElapsedTime(0, since) > LateAfter * interval;
        return _stood ? since : 0;
    }
}
