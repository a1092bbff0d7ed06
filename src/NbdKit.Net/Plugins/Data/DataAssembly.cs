namespace NbdKit.Plugins.Data;

/// <summary>A list of parts as it is put together: each goes to the current offset and moves it.</summary>
internal sealed class DataAssembly
{
    private readonly List<(long Offset, DataPiece Piece)> _pieces = [];

    // Short parts that follow each other, gathered.
    private readonly List<byte> _pending = [];
    private long _pendingStart;

    /// <summary>Where the next part goes.</summary>
    public long Offset { get; private set; }

    /// <summary>The largest offset so far, which is the size of the whole.</summary>
    public long Size { get; private set; }

    /// <summary>Goes to an offset, which may be anywhere.</summary>
    public void MoveTo(long offset)
    {
        Offset = offset;
        Size = Math.Max(Size, offset);
    }

    /// <summary>Puts a piece at the current offset, over what was there; the caller has checked that it fits.</summary>
    public void Add(DataPiece piece)
    {
        if (piece.Size is > 0 and <= DataPiece.SmallSize && piece.HasData)
        {
            if (_pendingStart + _pending.Count != Offset || _pending.Count >= DataPiece.BlockSize)
            {
                Flush();
                _pendingStart = Offset;
            }
            byte[] bytes = new byte[piece.Size];
            piece.CopyTo(new ArraySink(bytes), 0, 0, bytes.Length);
            _pending.AddRange(bytes);
        }
        else if (piece.Size > 0)
        {
            Flush();
            Put(Offset, piece);
        }
        MoveTo(Offset + piece.Size);
    }

    /// <summary>The whole.</summary>
    public DataPiece Build()
    {
        Flush();
        return DataPiece.Of(_pieces, Size);
    }

    private void Flush()
    {
        if (_pending.Count > 0)
        {
            Put(_pendingStart, DataPiece.Of(_pending.ToArray()));
            _pending.Clear();
        }
    }

    private void Put(long offset, DataPiece piece)
    {
        long end = offset + piece.Size;
        int index = _pieces.Count;
        while (index > 0 && _pieces[index - 1].Offset + _pieces[index - 1].Piece.Size > offset)
        {
            index--;
        }
        // From here on pieces end after the start of the new one: what it covers of them goes.
        int last = index;
        var kept = new List<(long, DataPiece)>(3);
        for (; last < _pieces.Count && _pieces[last].Offset < end; last++)
        {
            (long start, DataPiece old) = _pieces[last];
            if (start < offset)
            {
                kept.Add((start, old.Slice(0, offset - start)));
            }
            if (start + old.Size > end)
            {
                kept.Add((end, old.Slice(end - start, old.Size)));
            }
        }
        if (piece.HasData)
        {
            kept.Insert(kept.FindIndex(p => p.Item1 >= end) is >= 0 and var at ? at : kept.Count, (offset, piece));
        }
        _pieces.RemoveRange(index, last - index);
        _pieces.InsertRange(index, kept);
    }
}
