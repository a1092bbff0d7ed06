namespace NbdKit.Server;

// What a client reached and lives on with: said once, so that nobody fills a log by asking again.
internal sealed partial class Connection
{
    // Only the handshake and the receiving loop touch it, one after the other.
    private ReachedLimits _reached;

    /// <summary>Something was refused because of a limit, and the connection goes on.</summary>
    public void Refused(ReachedLimits limit)
    {
        if (IsFirst(limit))
        {
            Log.LimitReached(Logger, Public.Id, limit switch
            {
                ReachedLimits.OptionSize => "an option was refused that is longer than options may be",
                ReachedLimits.MetaQueries => "an option was refused that has more meta context queries than there may be",
                ReachedLimits.ListSize => "a list of exports was ended that was longer than replies to options may be",
                _ => "a read was refused that is longer than payloads may be",
            });
        }
    }

    /// <summary>A request waits because of a limit.</summary>
    public void Delayed(ReachedLimits limit)
    {
        if (IsFirst(limit))
        {
            Log.Delayed(Logger, Public.Id, limit switch
            {
                ReachedLimits.RequestsInFlight => "as many requests are in flight as one connection may have",
                ReachedLimits.BytesInFlight => "as many bytes are in flight as one connection may have",
                _ => "as many bytes are in flight as the server may have",
            });
        }
    }

    private bool IsFirst(ReachedLimits limit)
    {
        // What stood in the way may be gone when it is asked for.
        bool isFirst = limit != ReachedLimits.None && (_reached & limit) == 0;
        _reached |= limit;
        return isFirst;
    }
}
