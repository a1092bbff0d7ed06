using System.Numerics;

namespace NbdKit.Tool.Benching;

/// <summary>Counts latencies in buckets of at most a thirty-second of their value. For one thread at a time.</summary>
internal sealed class LatencyHistogram
{
    private const int SubBits = 5;

    private readonly long[] _buckets = new long[(64 - SubBits + 1) << SubBits];

    public long Count { get; private set; }

    /// <summary>The sum of all, in nanoseconds.</summary>
    public double Sum { get; private set; }

    /// <summary>The longest, in nanoseconds.</summary>
    public long Maximum { get; private set; }

    /// <summary>The mean in nanoseconds; 0 if there is none.</summary>
    public double Mean => Count == 0 ? 0 : Sum / Count;

    public void Add(long nanoseconds)
    {
        nanoseconds = Math.Max(0, nanoseconds);
        _buckets[Index(nanoseconds)]++;
        Count++;
        Sum += nanoseconds;
        Maximum = Math.Max(Maximum, nanoseconds);
    }

    public void AddAll(LatencyHistogram other)
    {
        for (int i = 0; i < _buckets.Length; i++)
        {
            _buckets[i] += other._buckets[i];
        }
        Count += other.Count;
        Sum += other.Sum;
        Maximum = Math.Max(Maximum, other.Maximum);
    }

    /// <summary>The latency in nanoseconds that so many of all do not exceed.</summary>
    /// <param name="share">From 0 to 1.</param>
    public long Percentile(double share)
    {
        long wanted = Math.Max(1, (long)Math.Ceiling(share * Count));
        long seen = 0;
        for (int i = 0; i < _buckets.Length; i++)
        {
            seen += _buckets[i];
            if (seen >= wanted)
            {
                return Math.Min(Upper(i), Maximum);
            }
        }
        return Maximum;
    }

    private static int Index(long value)
    {
        int shift = Math.Max(0, BitOperations.Log2((ulong)value) - SubBits);
        return (shift << SubBits) + (int)(value >> shift);
    }

    private static long Upper(int index)
    {
        int shift = Math.Max(0, (index >> SubBits) - 1);
        return ((long)(index - (shift << SubBits) + 1) << shift) - 1;
    }
}
