namespace NbdKit.Filters;

/// <summary>What filters that serve one part of the layer below as a whole export have in common.</summary>
internal static class Window
{
    /// <summary>
    /// Refuses a part that begins inside a block of the layer below: no request that looks aligned to the client would
    /// be aligned there.
    /// </summary>
    public static void RequireAligned(NextContext next, string what, long start)
    {
        long minimum = next.Info.BlockSize.Minimum;
        if (minimum > 1 && start % minimum != 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"{what} begins at {start}, which is not a multiple of the minimum block size of {minimum} bytes of "
                + $"{next.Backend.Name}; put the blocksize filter between them");
        }
    }

    /// <summary>Asks for the extents of a range of the part, and moves what comes back.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="start">Where the part begins in the layer below.</param>
    /// <param name="size">The size of the part.</param>
    /// <param name="offset">First byte asked for, counted from the start of the part.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags">The flags of the request.</param>
    /// <param name="extents">The caller's list, in the part's own offsets.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async ValueTask ExtentsAsync(
        NextContext next,
        long start,
        long size,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        // The window keeps what the layer below knows beyond the end of the part from leaking into the answer.
        var below = new ExtentList(start + offset, start + Math.Min(size, extents.End), extents.MetaContext);
        await next.ExtentsAsync(start + offset, length, flags, below, cancellationToken).ConfigureAwait(false);
        for (int i = 0; i < below.Count && !extents.IsFull; i++)
        {
            extents.Add(below[i].Offset - start, below[i].Length, below[i].Status);
        }
    }

    /// <summary>Reads from the part, and moves the holes that come back.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="start">Where the part begins in the layer below.</param>
    /// <param name="buffer">The memory to fill.</param>
    /// <param name="offset">First byte to read, counted from the start of the part.</param>
    /// <param name="extents">The caller's list, in the part's own offsets.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async ValueTask ReadSparseAsync(
        NextContext next,
        long start,
        Memory<byte> buffer,
        long offset,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        var below = new ExtentList(start + offset, start + offset + buffer.Length, maximumCount: int.MaxValue);
        await next.ReadSparseAsync(buffer, start + offset, below, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in below)
        {
            extents.Add(extent.Offset - start, extent.Length, extent.Status);
        }
    }
}
