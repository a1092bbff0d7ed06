using NbdKit.Layers;

namespace NbdKit;

// Reads that tell holes from data.
public sealed partial class NextContext
{
    /// <summary>
    /// Reads, and tells which parts are holes. What the layer does not know it reads as data, so that this is never wrong, and as
    /// good as its <see cref="NbdExportInfo.CanReadSparse"/>.
    /// </summary>
    /// <param name="buffer">The memory to fill; at least one byte. Its holes may hold anything afterwards.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="extents">
    /// An empty list whose window is the range. What is <see cref="ExtentStatus.Zero"/> in it afterwards is a hole; all else,
    /// whether it is in the list or not, is in the buffer.
    /// </param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="ArgumentException">The window of the list is not the range, or it is not empty.</exception>
    /// <exception cref="InvalidOperationException">The context is not prepared, or finalized.</exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        CheckRange(offset, buffer.Length);
        ArgumentNullException.ThrowIfNull(extents);
        if (extents.Count > 0 || extents.Start != offset || extents.End != offset + buffer.Length)
        {
            throw new ArgumentException("The list must be empty, and its window must be the range to read.", nameof(extents));
        }
        return _info!.CanReadSparse switch
        {
            Support.None => ReadAsync(buffer, offset, cancellationToken),
            Support.Emulate => ReadByExtentsAsync(buffer, offset, extents, cancellationToken),
            // Not told of a hole, a caller takes what the layer left in the buffer for its content.
            _ when !extents.IsUnlimited => ReadLimitedAsync(buffer, offset, extents, cancellationToken),
            _ when _readVia is not null && IsDirect => _readVia.ReadSparseAsync(buffer, offset, extents, cancellationToken),
            _ => Run(LayerCall.ReadSparse(buffer, offset, extents), cancellationToken),
        };
    }

    private async ValueTask ReadLimitedAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        var all = new ExtentList(offset, offset + buffer.Length, maximumCount: int.MaxValue);
        await ReadSparseAsync(buffer, offset, all, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in all)
        {
            extents.Add(extent.Offset, extent.Length, extent.Status);
            if ((extent.Status & ExtentStatus.Zero) != 0 && extents.Covered < extent.End)
            {
                buffer.Span[(int)(extent.Offset - offset)..(int)(extent.End - offset)].Clear();
            }
        }
    }

    private async ValueTask ReadByExtentsAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        Hold();
        try
        {
            await ExtentsAsync(offset, buffer.Length, RequestFlags.None, extents, cancellationToken).ConfigureAwait(false);
            long end = offset + buffer.Length;
            long block = Math.Max(1, _info!.BlockSize.Minimum);
            long at = offset;
            for (int i = 0; at < end; i++)
            {
                // What the layer did not get to is data.
                Extent extent = i < extents.Count ? extents[i] : new Extent(at, end - at, ExtentStatus.Data);
                if ((extent.Status & ExtentStatus.Zero) == 0)
                {
                    // Extents may have borders inside blocks, which can only be read as a whole.
                    long from = at & -block;
                    long to = Math.Min(end, (extent.End + block - 1) & -block);
                    await ReadAsync(buffer[(int)(from - offset)..(int)(to - offset)], from, cancellationToken)
                        .ConfigureAwait(false);
                }
                at = extent.End;
            }
        }
        finally
        {
            Leave();
        }
    }
}
