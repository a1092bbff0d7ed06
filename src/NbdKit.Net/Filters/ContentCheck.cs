using System.Buffers;

namespace NbdKit.Filters;

/// <summary>Compares what a layer holds with what a request would put there. Ranges need not be aligned to blocks.</summary>
internal static class ContentCheck
{
    private const int ChunkBytes = 1 << 20;

    /// <summary>Whether a range holds exactly these bytes.</summary>
    public static async ValueTask<bool> HoldsAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long end = offset + data.Length;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(BufferSize(next, data.Length));
        try
        {
            for (long at = offset; at < end;)
            {
                (int skip, int count) = await ReadChunkAsync(next, buffer, at, end, cancellationToken).ConfigureAwait(false);
                if (!data.Span.Slice((int)(at - offset), count).SequenceEqual(buffer.AsSpan(skip, count)))
                {
                    return false;
                }
                at += count;
            }
            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Whether a range reads as zeroes. What the extents say to be zero is not read.</summary>
    public static async ValueTask<bool> IsZeroAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        long end = offset + length;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(BufferSize(next, length));
        try
        {
            for (long at = offset; at < end;)
            {
                Extent extent = await ExtentAtAsync(next, at, end, cancellationToken).ConfigureAwait(false);
                long until = Math.Min(extent.End, end);
                while ((extent.Status & ExtentStatus.Zero) == 0 && at < until)
                {
                    (int skip, int count) = await ReadChunkAsync(next, buffer, at, until, cancellationToken).ConfigureAwait(false);
                    if (buffer.AsSpan(skip, count).ContainsAnyExcept((byte)0))
                    {
                        return false;
                    }
                    at += count;
                }
                at = until;
            }
            return true;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private static long Minimum(NextContext next) => Math.Max(1, next.Info.BlockSize.Minimum);

    /// <summary>A multiple of the minimum block size, and not more than the layer takes at once.</summary>
    private static int BufferSize(NextContext next, long length)
    {
        long minimum = Minimum(next);
        long most = next.Info.BlockSize.Maximum is > 0 and < ChunkBytes and var maximum ? maximum : ChunkBytes;
        // An unaligned range may touch one block more than its length fills.
        return (int)Math.Max(minimum, Math.Min(most, length + (2 * minimum)) & -minimum);
    }

    /// <summary>Reads the blocks at an offset; returns where in the buffer the wanted bytes are.</summary>
    private static async ValueTask<(int Skip, int Count)> ReadChunkAsync(
        NextContext next, byte[] buffer, long at, long end, CancellationToken cancellationToken)
    {
        long minimum = Minimum(next);
        int skip = (int)(at & (minimum - 1));
        long start = at - skip;
        // The array may be longer than what was asked for, and the layer takes no more than that.
        long most = next.Info.BlockSize.Maximum is > 0 and < ChunkBytes and var maximum ? maximum : ChunkBytes;
        most = Math.Max(minimum, Math.Min(most, buffer.Length) & -minimum);
        long wanted = Math.Min(end - start, most);
        long blocks = Math.Min((wanted + minimum - 1) & -minimum, next.Info.Size - start);
        await next.ReadAsync(buffer.AsMemory(0, (int)blocks), start, cancellationToken).ConfigureAwait(false);
        return (skip, (int)(wanted - skip));
    }

    private static async ValueTask<Extent> ExtentAtAsync(
        NextContext next, long at, long end, CancellationToken cancellationToken)
    {
        if (!next.Info.CanExtents)
        {
            return new Extent(at, end - at, ExtentStatus.Data);
        }
        long minimum = Minimum(next);
        long start = at & -minimum;
        long tail = Math.Min(next.Info.Size - start, (end - start + minimum - 1) & -minimum);
        var list = new ExtentList(start, start + tail);
        await next.ExtentsAsync(start, tail, RequestFlags.RequestOne, list, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in list)
        {
            if (extent.End > at)
            {
                return extent;
            }
        }
        // The answer ended before the byte in the middle of a block.
        return new Extent(start, Math.Min(end - start, minimum), ExtentStatus.Data);
    }
}
