using NbdKit.Filters.Statistics;

namespace NbdKit.Filters;

/// <summary>One kind of request, as <see cref="StatsFilter"/> counted it.</summary>
public sealed class OperationStats
{
    private readonly long[] _latency;

    internal OperationStats(long[] latency) => _latency = latency;

    /// <summary>The kind of request.</summary>
    public required RequestOperation Operation { get; init; }

    /// <summary>How many succeeded. All that follows but <see cref="Failures"/> is about these.</summary>
    public required long Requests { get; init; }

    /// <summary>How many failed.</summary>
    public required long Failures { get; init; }

    /// <summary>The bytes of their ranges; 0 for flushes.</summary>
    public required long Bytes { get; init; }

    /// <summary>How long they took, added up: more than the time that passed if several ran at once.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary>Their sizes and how their offsets were aligned, the smallest size first; nothing for flushes.</summary>
    public required IReadOnlyList<SizeStats> Sizes { get; init; }

    /// <summary>What a share of the requests did not take longer than, right to a sixteenth; zero if there were none.</summary>
    /// <param name="percent">The share in percent, from 0 to 100: 50 for the median.</param>
    /// <exception cref="ArgumentOutOfRangeException">It is not a percentage.</exception>
    public TimeSpan Percentile(double percent)
    {
        if (!(percent >= 0 && percent <= 100))
        {
            throw new ArgumentOutOfRangeException(nameof(percent), percent, "A percentile is from 0 to 100.");
        }
        return LatencyCounts.Percentile(_latency, percent);
    }
}
