namespace NbdKit;

/// <summary>
/// How an idle TCP connection is probed (SO_KEEPALIVE), so that one whose client is gone without a word is noticed and closed.
/// </summary>
/// <remarks>
/// Times are rounded up to whole seconds. On Linux a reply that the client's machine does not acknowledge, or has no room for, ends
/// the connection too, after as long as all probes without an answer take.
/// </remarks>
public sealed record NbdKeepAlive
{
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(32_767);

    /// <summary>How long a connection is silent before it is probed.</summary>
    /// <value>One minute by default; up to 32,767 seconds.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive, or too long.</exception>
    public TimeSpan Time { get; init => field = Checked(value); } = TimeSpan.FromMinutes(1);

    /// <summary>How long an answer is waited for before the next probe.</summary>
    /// <value>10 seconds by default; up to 32,767 seconds.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive, or too long.</exception>
    public TimeSpan Interval { get; init => field = Checked(value); } = TimeSpan.FromSeconds(10);

    /// <summary>The probes without an answer after which the connection is lost.</summary>
    /// <value>6 by default; from 1 to 127.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is out of range.</exception>
    public int Retries
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 127);
            field = value;
        }
    } = 6;

    private static TimeSpan Checked(TimeSpan value)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, Longest);
        return value;
    }
}
