namespace NbdKit.Filters.Spinning;

/// <summary>How long a seek takes: a parabola through the times for no distance, half the disk, and the whole disk.</summary>
internal sealed class SeekCurve(TimeSpan least, TimeSpan half, TimeSpan most)
{
    private readonly double _square = 2 * (most - (2 * half) + least).TotalSeconds;
    private readonly double _linear = ((4 * half) - (3 * least) - most).TotalSeconds;
    private readonly double _constant = least.TotalSeconds;

    /// <summary>The time for a part of the disk, from 0 to 1. Where the parabola dips below zero, no time.</summary>
    public TimeSpan TimeFor(double part)
        => TimeSpan.FromSeconds(Math.Max((((_square * part) + _linear) * part) + _constant, 0));
}
