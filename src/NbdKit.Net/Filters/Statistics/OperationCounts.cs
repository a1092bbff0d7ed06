using System.Numerics;

namespace NbdKit.Filters.Statistics;

/// <summary>The counts of one kind of request. Safe for use by several threads.</summary>
internal sealed class OperationCounts
{
    // Alignments from 0 to 62 bits, and one more place for offset 0, which has all of them.
    private const int AnyAlignment = 63;
    private const int Alignments = AnyAlignment + 1;

    // By the bits of the size; made when the first request of a size comes.
    private readonly long[]?[] _alignments = new long[]?[64];
    private readonly long[] _bytesOfSize = new long[64];
    private readonly LatencyCounts _latency = new();
    private long _operations;
    private long _failures;
    private long _bytes;
    private long _ticks;

    public void Fail() => Interlocked.Increment(ref _failures);

    public void Add(long offset, long length, long ticks)
    {
        Interlocked.Increment(ref _operations);
        Interlocked.Add(ref _bytes, length);
        Interlocked.Add(ref _ticks, ticks);
        _latency.Add(ticks);
        if (length == 0)
        {
            return;
        }
        int bits = BitOperations.Log2((ulong)length);
        long[] row = Volatile.Read(ref _alignments[bits]) ?? NewRow(bits);
        Interlocked.Increment(ref row[offset == 0 ? AnyAlignment : BitOperations.TrailingZeroCount(offset)]);
        Interlocked.Add(ref _bytesOfSize[bits], length);
    }

    public OperationStats Snapshot(RequestOperation operation)
    {
        var sizes = new List<SizeStats>();
        for (int bits = 0; bits < _alignments.Length; bits++)
        {
            if (Volatile.Read(ref _alignments[bits]) is { } row)
            {
                sizes.Add(Snapshot(bits, row));
            }
        }
        return new OperationStats(_latency.Copy())
        {
            Operation = operation,
            Requests = Interlocked.Read(ref _operations),
            Failures = Interlocked.Read(ref _failures),
            Bytes = Interlocked.Read(ref _bytes),
            Duration = TimeSpan.FromTicks(Interlocked.Read(ref _ticks)),
            Sizes = sizes,
        };
    }

    private long[] NewRow(int bits)
    {
        long[] row = new long[Alignments];
        return Interlocked.CompareExchange(ref _alignments[bits], row, null) ?? row;
    }

    private SizeStats Snapshot(int bits, long[] row)
    {
        long total = 0;
        long atZero = Interlocked.Read(ref row[AnyAlignment]);
        var aligned = new SortedDictionary<int, long>();
        long atLeast = atZero;
        // What is aligned to more bits is aligned to fewer.
        for (int alignment = AnyAlignment - 1; alignment >= 0; alignment--)
        {
            long count = Interlocked.Read(ref row[alignment]);
            if (count > 0)
            {
                atLeast += count;
                aligned[alignment] = atLeast;
            }
        }
        total = atLeast;
        return new SizeStats(bits, total, Interlocked.Read(ref _bytesOfSize[bits]), aligned);
    }
}
