using System.Buffers;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

// Reads, prefetches and extents: run by run of blocks that are in the same place.
internal sealed partial class CowOverlay
{
    public ValueTask ReadAsync(
        NextContext next, Memory<byte> buffer, long offset, bool keep, CancellationToken cancellationToken)
    {
        long limit = BlockOf(offset + buffer.Length - 1) + 1;
        BlockState state = _map.Run(BlockOf(offset), limit, out long end);
        return end < limit || (keep && state == BlockState.Below)
            ? ReadRunsAsync(next, buffer, offset, keep, cancellationToken)
            : ReadRun(next, state, buffer, offset, cancellationToken);
    }

    /// <summary>Whether no block of a range was ever changed.</summary>
    public bool IsBelow(long offset, long length) => Run(offset, offset + length, out long to) == BlockState.Below && to == offset + length;

    public async ValueTask CacheAsync(
        NextContext next, long offset, long length, bool keep, CancellationToken cancellationToken)
    {
        long end = offset + length;
        while (offset < end)
        {
            BlockState state = Run(offset, end, out long to);
            if (state == BlockState.Below)
            {
                if (keep)
                {
                    await CopyUpAsync(next, offset, to, cancellationToken).ConfigureAwait(false);
                }
                else if (next.Info.CanCache != Support.None)
                {
                    await next.CacheAsync(offset, to - offset, cancellationToken).ConfigureAwait(false);
                }
            }
            offset = to;
        }
    }

    public async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long end = offset + length;
        bool one = (flags & RequestFlags.RequestOne) != 0;
        bool isDepth = extents.MetaContext == ExtentList.AllocationDepth;
        while (offset < end && !extents.IsFull)
        {
            BlockState state = Run(offset, end, out long to);
            if (state == BlockState.Below)
            {
                to = await ExtentsBelowAsync(next, offset, to, one, extents, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                // A trimmed block hides what is below it as well as a stored one does.
                extents.Add(
                    offset,
                    to - offset,
                    isDepth ? (ExtentStatus)1
                        : state == BlockState.Stored ? ExtentStatus.Data
                        : ExtentStatus.Hole | ExtentStatus.Zero);
            }
            offset = to;
            if (one)
            {
                return;
            }
        }
    }

    private static async ValueTask<long> ExtentsBelowAsync(
        NextContext next, long offset, long to, bool one, ExtentList extents, CancellationToken cancellationToken)
    {
        ExtentList below;
        if (extents.MetaContext == ExtentList.AllocationDepth)
        {
            below = new ExtentList(offset, to, extents.MetaContext);
            await AllocationDepth.AskAsync(
                next, offset, to - offset, one ? RequestFlags.RequestOne : RequestFlags.None, below, deeper: 1, cancellationToken)
                .ConfigureAwait(false);
        }
        else if (one)
        {
            below = new ExtentList(offset, to, extents.MetaContext);
            await next.ExtentsAsync(offset, to - offset, RequestFlags.RequestOne, below, cancellationToken)
                .ConfigureAwait(false);
        }
        else
        {
            below = await next.ExtentsFullAsync(offset, to - offset, extents.MetaContext, cancellationToken)
                .ConfigureAwait(false);
        }
        foreach (Extent extent in below)
        {
            extents.Add(extent.Offset, extent.Length, extent.Status);
        }
        return below.Covered;
    }

    private ValueTask ReadRun(
        NextContext next, BlockState state, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        switch (state)
        {
            case BlockState.Stored:
                return _store.ReadAsync(buffer, offset, cancellationToken);
            case BlockState.Trimmed:
                buffer.Span.Clear();
                return default;
            default:
                return next.ReadAsync(buffer, offset, cancellationToken);
        }
    }

    private async ValueTask ReadRunsAsync(
        NextContext next, Memory<byte> buffer, long offset, bool keep, CancellationToken cancellationToken)
    {
        long end = offset + buffer.Length;
        while (buffer.Length > 0)
        {
            BlockState state = Run(offset, end, out long to);
            if (keep && state == BlockState.Below)
            {
                keep = await TryCopyUpAsync(next, offset, to, cancellationToken).ConfigureAwait(false);
                continue;
            }
            int count = (int)(to - offset);
            await ReadRun(next, state, buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            buffer = buffer[count..];
            offset = to;
        }
    }

    private async ValueTask<bool> TryCopyUpAsync(
        NextContext next, long offset, long end, CancellationToken cancellationToken)
    {
        try
        {
            await CopyUpAsync(next, offset, end, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
        {
            // The copy is a bonus. If it is the layer below that failed, reading from there says so.
            return false;
        }
    }

    /// <summary>Brings every block that a range touches into the overlay.</summary>
    private async ValueTask CopyUpAsync(NextContext next, long offset, long end, CancellationToken cancellationToken)
    {
        int blocks = Math.Max(1, CopyBytes >> _shift);
        long limit = BlockOf(end - 1) + 1;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(blocks << _shift);
        try
        {
            for (long first = BlockOf(offset); first < limit; first += blocks)
            {
                long piece = Math.Min(limit, first + blocks);
                using RangeLock.Holder held = await _locks.EnterAsync(first, piece, exclusive: true, cancellationToken)
                    .ConfigureAwait(false);
                for (long at = first; at < piece;)
                {
                    if (_map.Run(at, piece, out long to) == BlockState.Below)
                    {
                        Memory<byte> copy = buffer.AsMemory(0, (int)(EndOf(to - 1) - StartOf(at)));
                        await next.ReadInPiecesAsync(copy, StartOf(at), cancellationToken).ConfigureAwait(false);
                        await _store.WriteAsync(copy, StartOf(at), cancellationToken).ConfigureAwait(false);
                        _map.Set(at, to, BlockState.Stored);
                    }
                    at = to;
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>The state of the block at an offset, and where in the range the blocks of that state end.</summary>
    private BlockState Run(long offset, long end, out long to)
    {
        BlockState state = _map.Run(BlockOf(offset), BlockOf(end - 1) + 1, out long block);
        to = Math.Min(end, EndOf(block - 1));
        return state;
    }
}
