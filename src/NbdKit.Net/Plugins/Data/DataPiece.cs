namespace NbdKit.Plugins.Data;

/// <summary>
/// Bytes of a disk in the making: a tree of which every part may be used many times, so that its size is not bounded by what it
/// takes. Immutable.
/// </summary>
internal abstract class DataPiece(long size, bool hasData, int depth = 0)
{
    /// <summary>Pieces up to this size become plain bytes, so that what is made of them is not made byte by byte.</summary>
    public const int SmallSize = 4096;

    /// <summary>Plain bytes are gathered up to this size.</summary>
    public const int BlockSize = 64 << 10;

    /// <summary>No bytes.</summary>
    public static DataPiece Empty { get; } = new FilledPiece(0, 0);

    /// <summary>Number of bytes.</summary>
    public long Size => size;

    /// <summary>How many pieces are inside each other, at most; copying takes the stack of a thread for each.</summary>
    public int Depth => depth;

    /// <summary>Whether there may be others than zeroes.</summary>
    public bool HasData => hasData;

    /// <summary>Plain bytes.</summary>
    public static DataPiece Of(ReadOnlyMemory<byte> bytes)
        => bytes.Length == 0 ? Empty
            : bytes.Span.ContainsAnyExcept(bytes.Span[0]) ? new BytesPiece(bytes)
            : new FilledPiece(bytes.Span[0], bytes.Length);

    /// <summary>The same byte over and over.</summary>
    public static DataPiece Fill(byte value, long size) => new FilledPiece(value, size);

    /// <summary>Pieces at places, in order, that do not overlap.</summary>
    public static DataPiece Of(IReadOnlyList<(long Offset, DataPiece Piece)> pieces, long size)
        => pieces.Count == 0 ? Fill(0, size)
            : pieces is [(0, var only)] && only.Size == size ? only
            : Small(new SequencePiece([.. pieces], size));

    /// <summary>A piece over and over, <paramref name="size"/> bytes in all.</summary>
    public static DataPiece Repeat(DataPiece piece, long size)
    {
        if (size <= piece.Size)
        {
            return piece.Slice(0, size);
        }
        if (piece is FilledPiece filled)
        {
            return Fill(filled.Value, size);
        }
        if (!piece.HasData)
        {
            return Fill(0, size);
        }
        if (piece.Size <= SmallSize)
        {
            // Many short rounds become few long ones.
            long rounds = Math.Min((size - 1) / piece.Size + 1, BlockSize / piece.Size);
            byte[] block = new byte[rounds * piece.Size];
            new RepeatedPiece(piece, block.Length).CopyTo(new ArraySink(block), 0, 0, block.Length);
            piece = new BytesPiece(block);
        }
        return size <= piece.Size ? piece.Slice(0, size) : new RepeatedPiece(piece, size);
    }

    /// <summary>Some of the bytes.</summary>
    public DataPiece Slice(long from, long to)
        => from == to ? Empty : from == 0 && to == Size ? this : SliceOf(from, to);

    /// <summary>Gives a sink the bytes from <paramref name="from"/> to before <paramref name="to"/>, those that are not zero.</summary>
    public abstract void CopyTo(IDataSink sink, long offset, long from, long to);

    protected virtual DataPiece SliceOf(long from, long to) => Small(new SlicedPiece(this, from, to));

    private static DataPiece Small(DataPiece piece)
    {
        if (piece.Size > SmallSize || !piece.HasData)
        {
            return piece;
        }
        byte[] bytes = new byte[piece.Size];
        piece.CopyTo(new ArraySink(bytes), 0, 0, bytes.Length);
        return Of(bytes);
    }

    private sealed class BytesPiece(ReadOnlyMemory<byte> bytes) : DataPiece(bytes.Length, true)
    {
        public override void CopyTo(IDataSink sink, long offset, long from, long to)
            => sink.Write(offset, bytes.Span[(int)from..(int)to]);

        protected override DataPiece SliceOf(long from, long to) => Of(bytes[(int)from..(int)to]);
    }

    private sealed class FilledPiece(byte value, long size) : DataPiece(size, value != 0)
    {
        public byte Value => value;

        public override void CopyTo(IDataSink sink, long offset, long from, long to) => sink.Fill(offset, value, to - from);

        protected override DataPiece SliceOf(long from, long to) => Fill(value, to - from);
    }

    private sealed class SlicedPiece(DataPiece whole, long start, long end) : DataPiece(end - start, whole.HasData, whole.Depth + 1)
    {
        public override void CopyTo(IDataSink sink, long offset, long from, long to)
            => whole.CopyTo(sink, offset, start + from, start + to);

        protected override DataPiece SliceOf(long from, long to) => whole.Slice(start + from, start + to);
    }

    private sealed class RepeatedPiece(DataPiece round, long size) : DataPiece(size, round.HasData, round.Depth + 1)
    {
        public override void CopyTo(IDataSink sink, long offset, long from, long to)
        {
            while (from < to)
            {
                sink.Step();
                long within = from % round.Size;
                long count = Math.Min(round.Size - within, to - from);
                round.CopyTo(sink, offset, within, within + count);
                offset += count;
                from += count;
            }
        }
    }

    private sealed class SequencePiece((long Offset, DataPiece Piece)[] pieces, long size)
        : DataPiece(size, pieces.Any(p => p.Piece.HasData), 1 + pieces.Max(p => p.Piece.Depth))
    {
        public override void CopyTo(IDataSink sink, long offset, long from, long to)
        {
            // The first piece that ends after the start.
            int low = 0;
            for (int high = pieces.Length; low < high;)
            {
                int middle = (low + high) / 2;
                (low, high) = pieces[middle].Offset + pieces[middle].Piece.Size <= from ? (middle + 1, high) : (low, middle);
            }
            for (; low < pieces.Length && pieces[low].Offset < to; low++)
            {
                (long start, DataPiece piece) = pieces[low];
                if (piece.HasData)
                {
                    long first = Math.Max(from, start);
                    piece.CopyTo(sink, offset + first - from, first - start, Math.Min(to - start, piece.Size));
                }
            }
        }
    }
}
