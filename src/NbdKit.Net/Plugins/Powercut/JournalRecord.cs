namespace NbdKit.Plugins.Powercut;

/// <summary>
/// One change of a disk that is not on stable storage. Never changes: images that were handed out hold it. One that loses a
/// part of its range is replaced by another of the same number.
/// </summary>
internal sealed class JournalRecord
{
    // However large a range is that is zeroed, it is torn into no more pieces than this.
    private const long MostPieces = 4096;

    private readonly byte[]? _data;
    private readonly long _offset;
    private readonly JournalRange[] _ranges;

    /// <param name="id">Its number: later ones are newer.</param>
    /// <param name="kind">What it does.</param>
    /// <param name="owner">The context that it came through.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="data">The bytes of a write, from now on its own; else null.</param>
    /// <param name="cost">What it counts of the pending bytes.</param>
    public JournalRecord(long id, JournalKind kind, object owner, long offset, long length, byte[]? data, long cost)
    {
        Id = id;
        Kind = kind;
        Owner = owner;
        Cost = cost;
        _offset = offset;
        _data = data;
        _ranges = [new JournalRange(offset, offset + length)];
    }

    private JournalRecord(JournalRecord whole, JournalRange[] ranges)
    {
        Id = whole.Id;
        Kind = whole.Kind;
        Owner = whole.Owner;
        Cost = whole.Cost;
        _offset = whole._offset;
        _data = whole._data;
        _ranges = ranges;
    }

    public long Id { get; }

    public JournalKind Kind { get; }

    public object Owner { get; }

    public long Cost { get; }

    /// <summary>What is left of its range: at least one range, in order, apart from each other.</summary>
    public IReadOnlyList<JournalRange> Ranges => _ranges;

    public long Start => _ranges[0].Start;

    public long End => _ranges[^1].End;

    /// <summary>The bytes of a range that a write has.</summary>
    public ReadOnlyMemory<byte> Bytes(JournalRange range)
        => _data.AsMemory((int)(range.Start - _offset), (int)(range.End - range.Start));

    public bool Touches(long start, long end)
    {
        foreach (JournalRange range in _ranges)
        {
            if (range.Overlaps(start, end))
            {
                return true;
            }
        }
        return false;
    }

    public bool Covers(long start, long end)
    {
        foreach (JournalRange range in _ranges)
        {
            if (range.Start <= start && end <= range.End)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>Does to a part of the disk what it does to the whole.</summary>
    /// <param name="part">The bytes from an offset of the disk on.</param>
    /// <param name="offset">That offset.</param>
    public void Apply(Span<byte> part, long offset)
    {
        foreach (JournalRange range in _ranges)
        {
            long from = Math.Max(range.Start, offset);
            int count = (int)(Math.Min(range.End, offset + part.Length) - from);
            if (count <= 0)
            {
                continue;
            }
            Span<byte> target = part.Slice((int)(from - offset), count);
            if (_data is null)
            {
                target.Clear();
            }
            else
            {
                _data.AsSpan((int)(from - _offset), count).CopyTo(target);
            }
        }
    }

    /// <summary>The size of the pieces that it is torn into, a multiple of the sector size.</summary>
    public long Piece(int sectorSize)
    {
        long piece = sectorSize;
        while (_data is null && (End - Start) / piece > MostPieces)
        {
            piece *= 2;
        }
        return piece;
    }

    /// <summary>What is left of it without a range: itself, a part, or null.</summary>
    public JournalRecord? Without(JournalRange lost)
    {
        if (!Touches(lost.Start, lost.End))
        {
            return this;
        }
        var left = new List<JournalRange>(_ranges.Length + 1);
        foreach (JournalRange range in _ranges)
        {
            if (!range.Overlaps(lost.Start, lost.End))
            {
                left.Add(range);
                continue;
            }
            if (range.Start < lost.Start)
            {
                left.Add(range with { End = lost.Start });
            }
            if (lost.End < range.End)
            {
                left.Add(range with { Start = lost.End });
            }
        }
        return left.Count == 0 ? null : new JournalRecord(this, [.. left]);
    }
}
