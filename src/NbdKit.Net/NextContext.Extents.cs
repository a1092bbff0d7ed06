namespace NbdKit;

// Questions about extents that one answer of a layer may not settle (nbdkit_extents_full, nbdkit_extents_aligned).
public sealed partial class NextContext
{
    // A layer may tell a few bytes at a time, of a disk that has 2^63 of them.
    private const int EnoughAnswers = 256;

    /// <summary>Asks for extents until the whole range is covered or the list is full.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="metaContext">The meta context to ask for.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>Extents that begin at <paramref name="offset"/> and end exactly with the range, unless the list is full.</returns>
    /// <exception cref="NbdException">The layer failed, or stopped answering.</exception>
    public ValueTask<ExtentList> ExtentsFullAsync(
        long offset, long length, string metaContext, CancellationToken cancellationToken)
        => ExtentsFullAsync(offset, length, length, metaContext, cancellationToken);

    /// <summary>
    /// Asks for extents whose borders are multiples of a block size: a block made of several kinds gets only the status bits
    /// that all of them have. A short block at the end of the export is kept. May stop before the end of the range, as a layer
    /// may, if the layer below tells little at a time.
    /// </summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="alignment">The block size in bytes, a power of two.</param>
    /// <param name="extents">Receives the extents.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async ValueTask ExtentsAlignedAsync(
        long offset, long length, long alignment, ExtentList extents, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        long size = Info.Size;
        long start = offset & ~(alignment - 1);
        long end = length > size - offset - (alignment - 1)
            ? size
            : Math.Min(size, (offset + length + alignment - 1) & ~(alignment - 1));
        ExtentList fine = await ExtentsFullAsync(
            start, end - start, Math.Min(alignment, end - start), extents.MetaContext, cancellationToken).ConfigureAwait(false);
        long at = start;
        int i = 0;
        long covered = fine.Covered;
        while (at < covered && !extents.IsFull)
        {
            while (fine[i].End <= at)
            {
                i++;
            }
            ExtentStatus status = fine[i].Status;
            long whole = (fine[i].End - at) & ~(alignment - 1);
            long to;
            if (whole > 0)
            {
                to = at + whole;
            }
            else
            {
                // A mixed block: it promises only what every part of it does.
                to = alignment < end - at ? at + alignment : end;
                for (int j = i; j < fine.Count && fine[j].Offset < to; j++)
                {
                    status &= fine[j].Status;
                }
                if (to > covered && covered < end)
                {
                    break;
                }
            }
            extents.Add(at, to - at, status);
            at = to;
        }
    }

    /// <summary>Asks until the range is covered or the list full; after many answers only as far as need be.</summary>
    private async ValueTask<ExtentList> ExtentsFullAsync(
        long offset, long length, long needed, string metaContext, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        long end = offset + length;
        var full = new ExtentList(offset, end, metaContext);
        var part = new ExtentList(offset, end, metaContext);
        Hold();
        try
        {
            for (int answers = 0; !full.IsFull && (answers < EnoughAnswers || full.Covered - offset < needed); answers++)
            {
                // A layer that answers at once need not look at it.
                cancellationToken.ThrowIfCancellationRequested();
                long from = full.Covered;
                part.Reset(from, end);
                await ExtentsAsync(from, end - from, RequestFlags.None, part, cancellationToken).ConfigureAwait(false);
                foreach (Extent extent in part)
                {
                    full.Add(extent.Offset, extent.Length, extent.Status);
                }
            }
        }
        finally
        {
            Leave();
        }
        return full;
    }
}
