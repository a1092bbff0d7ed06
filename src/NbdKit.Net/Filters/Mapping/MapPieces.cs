namespace NbdKit.Filters.Mapping;

/// <summary>All offsets from 0 to 2^63-1, divided where ranges of a <see cref="MapFilter"/> begin and end.</summary>
internal sealed class MapPieces
{
    private readonly long[] _starts;
    private readonly long[] _below;

    public MapPieces(IReadOnlyList<MapRange> ranges)
    {
        _starts = [.. ranges.SelectMany(range => new[] { range.Start, range.End + 1 }).Append(0).Distinct().Order()];
        _below = new long[_starts.Length];
        for (int i = 0; i < _starts.Length; i++)
        {
            _below[i] = _starts[i];
            foreach (MapRange range in ranges)
            {
                if (range.Start <= _starts[i] && _starts[i] <= range.End)
                {
                    _below[i] = range.Destination + (_starts[i] - range.Start);
                    break;
                }
            }
        }
    }

    /// <summary>Where an offset lies below.</summary>
    /// <param name="offset">An offset of the disk.</param>
    /// <param name="length">How many bytes from there on lie together.</param>
    public long Find(long offset, out long length)
    {
        int i = Array.BinarySearch(_starts, offset);
        i = i < 0 ? ~i - 1 : i;
        length = (i + 1 < _starts.Length ? _starts[i + 1] : long.MaxValue) - offset;
        return _below[i] + (offset - _starts[i]);
    }
}
