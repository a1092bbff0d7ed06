namespace NbdKit.Filters.Extents;

/// <summary>
/// What each range of a disk is, and stays so under changes. Safe for use by several threads. A change to what the map says
/// already costs a search; another one moves the borders behind it.
/// </summary>
internal sealed class ExtentMap
{
    private const int MostRanges = 1 << 20;
    private const long Coarse = 64 << 10;

    private readonly Lock _lock = new();

    // Where each range begins, and what it is up to the next one; the last goes on for ever. The first begins at 0.
    private readonly List<(long Start, ExtentStatus Status)> _ranges = [];

    /// <param name="extents">In order, without overlaps; what is between them is a hole that reads as zeroes.</param>
    public ExtentMap(IEnumerable<Extent> extents)
    {
        long at = 0;
        foreach (Extent extent in extents)
        {
            Append(at, extent.Offset, ExtentStatus.Hole | ExtentStatus.Zero);
            Append(extent.Offset, extent.End, extent.Status);
            at = extent.End;
        }
        Append(at, long.MaxValue, ExtentStatus.Hole | ExtentStatus.Zero);
    }

    /// <summary>Adds what a range is made of.</summary>
    public void Query(long start, long end, ExtentList extents)
    {
        lock (_lock)
        {
            for (int i = IndexOf(start); start < end && !extents.IsFull; i++)
            {
                long to = Math.Min(EndOf(i), end);
                extents.Add(start, to - start, _ranges[i].Status);
                start = to;
            }
        }
    }

    /// <summary>Says what a range is from now on.</summary>
    public void Set(long start, long end, ExtentStatus status)
    {
        lock (_lock)
        {
            if (_ranges.Count > MostRanges)
            {
                // Coarse from here on: that something is data is always true.
                status = ExtentStatus.Data;
                start &= -Coarse;
                end = end > long.MaxValue - Coarse ? long.MaxValue : (end + Coarse - 1) & -Coarse;
            }
            int first = IndexOf(start);
            if (_ranges[first].Status == status && EndOf(first) >= end)
            {
                return;
            }
            int last = IndexOf(end - 1);
            ExtentStatus after = _ranges[last].Status;
            long afterEnd = EndOf(last);
            // The ranges from first to last give way to at most three; neighbours that become alike are joined.
            var put = new List<(long Start, ExtentStatus Status)>(3);
            if (_ranges[first].Start < start)
            {
                put.Add(_ranges[first]);
            }
            put.Add((start, status));
            if (end < afterEnd)
            {
                put.Add((end, after));
            }
            int from = first;
            if (first > 0)
            {
                put.Insert(0, _ranges[--from]);
            }
            if (last + 1 < _ranges.Count)
            {
                put.Add(_ranges[++last]);
            }
            for (int i = put.Count - 1; i > 0; i--)
            {
                if (put[i].Status == put[i - 1].Status)
                {
                    put.RemoveAt(i);
                }
            }
            _ranges.RemoveRange(from, last - from + 1);
            _ranges.InsertRange(from, put);
        }
    }

    private void Append(long start, long end, ExtentStatus status)
    {
        if (start < end && (_ranges.Count == 0 || _ranges[^1].Status != status))
        {
            _ranges.Add((start, status));
        }
    }

    private long EndOf(int index) => index + 1 < _ranges.Count ? _ranges[index + 1].Start : long.MaxValue;

    private int IndexOf(long offset)
    {
        int low = 0;
        int high = _ranges.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            if (_ranges[middle].Start <= offset)
            {
                low = middle;
            }
            else
            {
                high = middle - 1;
            }
        }
        return low;
    }
}
