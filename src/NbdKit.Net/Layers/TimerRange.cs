namespace NbdKit.Layers;

/// <summary>What timers of .NET can wait.</summary>
internal static class TimerRange
{
    /// <summary>The longest.</summary>
    public static readonly TimeSpan Longest = TimeSpan.FromMilliseconds(uint.MaxValue - 1);

    /// <summary>Returns a time that is not negative and that a timer can wait.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is none.</exception>
    public static TimeSpan Checked(TimeSpan value)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, Longest);
        return value;
    }
}
