namespace NbdKit.Plugins.Partitioning;

/// <summary>
/// The bytes of a disk that belong to no partition: pieces of a table, and zeroes. It takes only writes that change nothing.
/// </summary>
/// <param name="pieces">The pieces of the table, in order.</param>
/// <param name="size">The number of bytes in all.</param>
internal sealed class FramePlugin(TablePiece[] pieces, long size) : INbdPlugin, INbdPluginHandle
{
    public string Name => "partitioning-frame";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = size,
        CanWrite = true,
        CanFlush = true,
        CanFua = Support.Native,
        CanZero = Support.Native,
        CanFastZero = true,
        CanExtents = true,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        for (Span<byte> left = buffer.Span; !left.IsEmpty;)
        {
            int count = (int)Math.Min(left.Length, At(offset, out ReadOnlySpan<byte> data));
            if (data.IsEmpty)
            {
                left[..count].Clear();
            }
            else
            {
                data[..count].CopyTo(left);
            }
            left = left[count..];
            offset += count;
        }
        return default;
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        for (ReadOnlySpan<byte> left = data.Span; !left.IsEmpty;)
        {
            int count = (int)Math.Min(left.Length, At(offset, out ReadOnlySpan<byte> table));
            if (table.IsEmpty ? left[..count].ContainsAnyExcept((byte)0) : !table[..count].SequenceEqual(left[..count]))
            {
                throw Unchangeable(isTable: !table.IsEmpty);
            }
            left = left[count..];
            offset += count;
        }
        return default;
    }

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            long count = Math.Min(end - offset, At(offset, out ReadOnlySpan<byte> table));
            if (!table.IsEmpty && table[..(int)count].ContainsAnyExcept((byte)0))
            {
                throw Unchangeable(isTable: true);
            }
            offset += count;
        }
        return default;
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end && !extents.IsFull;)
        {
            long count = At(offset, out ReadOnlySpan<byte> table);
            extents.Add(offset, count, table.IsEmpty ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            offset += count;
        }
        return default;
    }

    /// <summary>What is at an offset: the rest of a piece of the table, or nothing for zeroes.</summary>
    /// <returns>The number of bytes that are alike.</returns>
    private long At(long offset, out ReadOnlySpan<byte> table)
    {
        table = default;
        // The first piece that ends behind the offset.
        int low = 0;
        int high = pieces.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            (low, high) = pieces[middle].End > offset ? (low, middle) : (middle + 1, high);
        }
        if (low == pieces.Length)
        {
            return size - offset;
        }
        TablePiece piece = pieces[low];
        if (piece.Offset > offset)
        {
            return piece.Offset - offset;
        }
        table = piece.Data.AsSpan((int)(offset - piece.Offset));
        return table.Length;
    }

    private static NbdException Unchangeable(bool isTable) => new(
        NbdError.IoError,
        isTable ? "partitioning: the partition table cannot be changed" : "partitioning: between partitions there can only be zeroes");
}
