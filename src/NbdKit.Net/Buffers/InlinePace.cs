namespace NbdKit.Buffers;

/// <summary>
/// Decides whether calls that could block, but hardly ever do, are made on the caller's thread: as long as they are quick. After
/// a slow one the next go elsewhere, more of them each time, until one that is tried again is quick.
/// </summary>
/// <remarks>
/// A write into the page cache takes a microsecond, less than handing it to another thread; but when memory is full of data that
/// waits for the disk, or a page has to be read first, it takes as long as the disk does. Races between threads only make it
/// guess a little worse.
/// </remarks>
internal sealed class InlinePace(TimeProvider time)
{
    // More than waiting for the lock of a file takes, less than a disk that is behind; a thread that lost its processor for a
    // moment is taken for the latter, which does no harm.
    private static readonly TimeSpan Quick = TimeSpan.FromMilliseconds(1);

    private const int FirstPause = 16;
    private const int LongestPause = 256;

    private int _pause = FirstPause;
    private int _pauseLeft;

    /// <summary>Whether to make the next call here; if so, <see cref="End"/> follows.</summary>
    public bool TryBegin(out long start)
    {
        start = 0;
        if (_pauseLeft > 0)
        {
            _pauseLeft--;
            return false;
        }
        start = time.GetTimestamp();
        return true;
    }

    /// <summary>The call has returned.</summary>
    public void End(long start)
    {
        if (time.GetElapsedTime(start) < Quick)
        {
            _pause = FirstPause;
            return;
        }
        _pauseLeft = _pause;
        _pause = Math.Min(LongestPause, _pause * 2);
    }
}
