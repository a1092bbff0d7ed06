using System.Diagnostics;

namespace NbdKit.Transports;

/// <summary>
/// Whether, and for how long, a thread asks for the next request again and again before it goes to sleep. Used by one thread at
/// a time.
/// </summary>
/// <remarks>
/// A client that has one request under way answers a reply within microseconds, while falling asleep and being woken takes
/// both sides several times as long: one request at a time is twice as fast with this, for less processor time. It only pays
/// for such a client (one with a deeper queue sends more with each wait), and only where the thread takes no processor that
/// others need. Who does not answer in time is asked less and less often.
/// </remarks>
internal sealed class ReceiveSpin(PumpThreads threads)
{
    // The processor time that a wrong guess costs.
    private static readonly long Limit = Stopwatch.Frequency * 50 / 1_000_000;

    private const int MaxPause = 1024;

    private int _pause = 1;
    private int _pauseLeft;
    private long _start;

    /// <summary>Set after a batch of requests that was as small as those of a client that waits for each reply.</summary>
    public bool IsClientWaiting { get; set; }

    /// <summary>Whether to spin for the receive that is due now.</summary>
    public bool Begin()
    {
        if (!IsClientWaiting || threads.Lent > Environment.ProcessorCount / 2 || _pauseLeft-- > 0)
        {
            return false;
        }
        _start = Stopwatch.GetTimestamp();
        return true;
    }

    /// <summary>Nothing was there; whether to ask again.</summary>
    public bool Continue()
    {
        if (Stopwatch.GetTimestamp() - _start < Limit)
        {
            return true;
        }
        _pauseLeft = _pause;
        _pause = Math.Min(MaxPause, _pause * 2);
        return false;
    }

    /// <summary>Something came while it was asked for.</summary>
    // Not at once back to the shortest pause: where a third of the guesses is wrong it does not pay any more.
    public void Succeed() => _pause -= _pause / 4;
}
