namespace NbdKit.Copy;

/// <summary>A set of ranges: in order, apart from each other. Not safe for use by several threads.</summary>
internal sealed class RangeSet
{
    private readonly List<CopyRange> _ranges = [];

    /// <summary>The ranges in order.</summary>
    public IReadOnlyList<CopyRange> Ranges => _ranges;

    public bool IsEmpty => _ranges.Count == 0;

    /// <summary>The number of bytes in all ranges.</summary>
    public long Bytes => _ranges.Sum(range => range.Length);

    /// <summary>Adds a range, joining it with those that it touches.</summary>
    public void Add(long offset, long length)
    {
        long end = offset + length;
        // Copies go forwards, so it is nearly always at the end.
        int first = _ranges.Count;
        while (first > 0 && _ranges[first - 1].End >= offset)
        {
            first--;
        }
        int last = first;
        while (last < _ranges.Count && _ranges[last].Offset <= end)
        {
            offset = Math.Min(offset, _ranges[last].Offset);
            end = Math.Max(end, _ranges[last].End);
            last++;
        }
        var joined = new CopyRange(offset, end - offset);
        if (last == first)
        {
            _ranges.Insert(first, joined);
        }
        else
        {
            _ranges[first] = joined;
            _ranges.RemoveRange(first + 1, last - first - 1);
        }
    }

    /// <summary>Whether a byte is in the set, and where that changes next (2^63-1 for never).</summary>
    public bool Find(long offset, out long boundary)
    {
        int low = 0;
        int high = _ranges.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_ranges[middle].End > offset)
            {
                high = middle;
            }
            else
            {
                low = middle + 1;
            }
        }
        if (low == _ranges.Count)
        {
            boundary = long.MaxValue;
            return false;
        }
        bool inside = _ranges[low].Offset <= offset;
        boundary = inside ? _ranges[low].End : _ranges[low].Offset;
        return inside;
    }
}
