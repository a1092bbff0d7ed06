using System.Numerics;

namespace NbdKit.Filters.Statistics;

/// <summary>
/// How many requests took how long, in buckets of which there are 16 for each doubling: what is read from them is right to 1/16.
/// Safe for use by several threads.
/// </summary>
internal sealed class LatencyCounts
{
    private const int StepBits = 4;
    private const int Steps = 1 << StepBits;

    private readonly long[] _buckets = new long[(64 - StepBits) * Steps];

    public void Add(long ticks) => Interlocked.Increment(ref _buckets[Bucket(ticks)]);

    public long[] Copy()
    {
        long[] copy = new long[_buckets.Length];
        for (int i = 0; i < copy.Length; i++)
        {
            copy[i] = Interlocked.Read(ref _buckets[i]);
        }
        return copy;
    }

    /// <summary>What the given share of the requests did not take longer than: the upper end of its bucket.</summary>
    public static TimeSpan Percentile(long[] buckets, double percent)
    {
        long rank = Math.Max(1, (long)Math.Ceiling(buckets.Sum() * percent / 100));
        for (int i = 0; i < buckets.Length; i++)
        {
            rank -= buckets[i];
            if (rank <= 0)
            {
                return TimeSpan.FromTicks(UpperEnd(i));
            }
        }
        return TimeSpan.Zero;
    }

    private static int Bucket(long ticks)
    {
        ulong value = (ulong)Math.Max(ticks, 0);
        if (value < Steps)
        {
            return (int)value;
        }
        int shift = BitOperations.Log2(value) - StepBits;
        return ((shift + 1) * Steps) + (int)((value >> shift) & (Steps - 1));
    }

    private static long UpperEnd(int bucket)
    {
        if (bucket < Steps)
        {
            return bucket;
        }
        int shift = (bucket / Steps) - 1;
        ulong end = ((ulong)((bucket % Steps) + Steps + 1) << shift) - 1;
        return (long)Math.Min(end, long.MaxValue);
    }
}
