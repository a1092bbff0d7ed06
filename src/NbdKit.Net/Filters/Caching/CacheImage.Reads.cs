using System.Buffers;
using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

// Reads, prefetches and extents.
internal sealed partial class CacheImage
{
    public ValueTask ReadAsync(
        CacheUser user, Memory<byte> buffer, long offset, bool keep, CancellationToken cancellationToken)
    {
        long limit = BlockOf(offset + buffer.Length - 1) + 1;
        BlockState state = _index.Run(BlockOf(offset), limit, out long end);
        if (state == BlockState.Below && end == limit && !keep)
        {
            return user.Next.ReadAsync(buffer, offset, cancellationToken);
        }
        // What would fill the store is not worth it: it would be gone before it is read again.
        keep &= (end < limit || state == BlockState.Below) && limit - BlockOf(offset) <= Math.Max(1, _index.Capacity / 2);
        return keep
            ? KeepAndReadAsync(user, buffer, offset, cancellationToken)
            : ReadHeldAsync(user, buffer, offset, cancellationToken);
    }

    /// <summary>Brings every block that a range touches into the store, as far as there is room.</summary>
    public async ValueTask PrefetchAsync(CacheUser user, long offset, long length, CancellationToken cancellationToken)
    {
        long limit = BlockOf(offset + length - 1) + 1;
        for (long first = BlockOf(offset); first < limit;)
        {
            BlockState state = _index.Run(first, limit, out long end);
            if (state == BlockState.Below)
            {
                end = Math.Min(end, first + _piece);
                if (!await FetchAsync(user, first, end, cancellationToken).ConfigureAwait(false))
                {
                    return;
                }
            }
            first = end;
        }
    }

    public async ValueTask ExtentsAsync(
        CacheUser user,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        // What is in the store and was not changed is below as well.
        long end = offset + length;
        bool one = (flags & RequestFlags.RequestOne) != 0;
        while (offset < end && !extents.IsFull)
        {
            long to = ChangedRun(offset, end, out bool isChanged);
            if (isChanged)
            {
                extents.Add(offset, to - offset, ExtentStatus.Data);
            }
            else
            {
                var below = new ExtentList(offset, to, extents.MetaContext);
                await user.Next.ExtentsAsync(offset, to - offset, flags, below, cancellationToken).ConfigureAwait(false);
                foreach (Extent extent in below)
                {
                    extents.Add(extent.Offset, extent.Length, extent.Status);
                }
                to = below.Covered;
            }
            offset = to;
            if (one)
            {
                return;
            }
        }
    }

    /// <summary>Where the blocks end that were changed, or were not, as that at an offset was or was not.</summary>
    private long ChangedRun(long offset, long end, out bool isChanged)
    {
        long limit = BlockOf(end - 1) + 1;
        isChanged = _index.Run(BlockOf(offset), limit, out long to) == BlockState.Changed;
        while (!isChanged && to < limit && _index.Run(to, limit, out long next) != BlockState.Changed)
        {
            to = next;
        }
        return Math.Min(end, EndOf(to - 1));
    }

    private async ValueTask KeepAndReadAsync(
        CacheUser user, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        try
        {
            await PrefetchAsync(user, offset, buffer.Length, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
        {
            // Keeping is a bonus. If it is the layer below that failed, reading from there says so.
        }
        await ReadHeldAsync(user, buffer, offset, cancellationToken).ConfigureAwait(false);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadHeldAsync(
        CacheUser user, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long limit = BlockOf(offset + buffer.Length - 1) + 1;
        using RangeLock.Holder held = await _locks.EnterAsync(BlockOf(offset), limit, exclusive: false, cancellationToken)
            .ConfigureAwait(false);
        while (buffer.Length > 0)
        {
            BlockState state = _index.Run(BlockOf(offset), limit, out long end);
            int count = (int)Math.Min(buffer.Length, EndOf(end - 1) - offset);
            if (state == BlockState.Below)
            {
                await user.Next.ReadAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await ReadStoredAsync(user, state, buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <summary>Reads blocks that are in the store; the caller holds them.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadStoredAsync(
        CacheUser user, BlockState state, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            long block = BlockOf(offset);
            SlotRun run = _index.Find(block, BlockOf(offset + buffer.Length - 1) + 1);
            int count = (int)Math.Min(buffer.Length, EndOf(block + run.Count - 1) - offset);
            try
            {
                await _store.ReadAsync(buffer[..count], SlotOffset(run.Slot) + offset - StartOf(block), cancellationToken)
                    .ConfigureAwait(false);
            }
            catch (Exception) when (state == BlockState.Stored && !cancellationToken.IsCancellationRequested)
            {
                // The store failed, but the same bytes are below.
                await user.Next.ReadInPiecesAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <summary>Brings those blocks of a range into the store that are not there; false if there was no room.</summary>
    private async ValueTask<bool> FetchAsync(CacheUser user, long first, long end, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(LengthOf(first, end));
        try
        {
            using RangeLock.Holder held = await _locks.EnterAsync(first, end, exclusive: true, cancellationToken)
                .ConfigureAwait(false);
            for (long at = first; at < end;)
            {
                if (_index.Run(at, end, out long to) == BlockState.Below)
                {
                    Memory<byte> copy = buffer.AsMemory(0, LengthOf(at, to));
                    await user.Next.ReadInPiecesAsync(copy, StartOf(at), cancellationToken).ConfigureAwait(false);
                    if (await StoreAsync(null, at, to, copy, BlockState.Stored, cancellationToken).ConfigureAwait(false) < to)
                    {
                        return false;
                    }
                }
                at = to;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            ReclaimIfNeeded();
        }
        return true;
    }
}
