using System.Buffers;
using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

// Writes: into the store, to be written below later; or below at once, and into the store what is there or fits in whole
// blocks.
internal sealed partial class CacheImage
{
    public ValueTask WriteAsync(
        CacheUser user, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => IsWriteThrough || (flags & RequestFlags.Fua) != 0
            ? WriteThroughAsync(user, data, offset, flags, cancellationToken)
            : WriteBackAsync(user, data, offset, cancellationToken);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WriteBackAsync(
        CacheUser user, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long end = offset + data.Length;
        using (await _locks.EnterAsync(BlockOf(offset), BlockOf(end - 1) + 1, exclusive: true, cancellationToken)
            .ConfigureAwait(false))
        {
            while (data.Length > 0)
            {
                long block = BlockOf(offset);
                int count = CountWhole(offset, end);
                if (count == 0)
                {
                    count = (int)(Math.Min(end, EndOf(block)) - offset);
                    await WritePartAsync(user, block, data[..count], offset, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    long wholeEnd = BlockOf(offset + count - 1) + 1;
                    long stored = await StoreAsync(user, block, wholeEnd, data[..count], BlockState.Changed, cancellationToken)
                        .ConfigureAwait(false);
                    if (stored < wholeEnd)
                    {
                        ReadOnlyMemory<byte> rest = data[(int)(StartOf(stored) - offset)..count];
                        await WriteBelowAsync(user, rest, StartOf(stored), RequestFlags.None, cancellationToken)
                            .ConfigureAwait(false);
                        _index.Drop(stored, wholeEnd, unchangedOnly: false);
                    }
                }
                data = data[count..];
                offset += count;
            }
        }
        ReclaimIfNeeded();
    }

    private async ValueTask WriteThroughAsync(
        CacheUser user, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        long end = offset + data.Length;
        long limit = BlockOf(end - 1) + 1;
        using (await _locks.EnterAsync(BlockOf(offset), limit, exclusive: true, cancellationToken).ConfigureAwait(false))
        {
            try
            {
                await WriteBelowAsync(user, data, offset, flags, cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                // What is below now, nobody knows.
                _index.Drop(BlockOf(offset), limit, unchangedOnly: true);
                throw;
            }
            while (data.Length > 0)
            {
                long block = BlockOf(offset);
                int count = CountWhole(offset, end);
                if (count == 0)
                {
                    count = (int)(Math.Min(end, EndOf(block)) - offset);
                    if (!await TryUpdateAsync(block, data[..count], offset, cancellationToken).ConfigureAwait(false)
                        && _index.Run(block, block + 1, out _) == BlockState.Changed)
                    {
                        await WriteAroundAsync(user, block, data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
                    }
                }
                else
                {
                    long wholeEnd = BlockOf(offset + count - 1) + 1;
                    long stored = await StoreAsync(null, block, wholeEnd, data[..count], BlockState.Stored, cancellationToken)
                        .ConfigureAwait(false);
                    _index.Drop(stored, wholeEnd, unchangedOnly: false);
                }
                data = data[count..];
                offset += count;
            }
        }
        ReclaimIfNeeded();
    }

    /// <summary>The bytes from an offset that are whole blocks, or 0 if it is within one.</summary>
    private int CountWhole(long offset, long end)
    {
        if (offset != StartOf(BlockOf(offset)))
        {
            return 0;
        }
        return (int)((end == Size ? Size : StartOf(BlockOf(end))) - offset);
    }

    /// <summary>Changes a part of a block; the caller holds it.</summary>
    private async ValueTask WritePartAsync(
        CacheUser user, long block, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        if (await TryUpdateAsync(block, data, offset, cancellationToken).ConfigureAwait(false))
        {
            _index.Mark(block, block + 1, BlockState.Changed);
            return;
        }
        if (_index.Run(block, block + 1, out _) == BlockState.Below)
        {
            int length = LengthOf(block, block + 1);
            byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
            try
            {
                Memory<byte> whole = buffer.AsMemory(0, length);
                await user.Next.ReadInPiecesAsync(whole, StartOf(block), cancellationToken).ConfigureAwait(false);
                data.CopyTo(whole[(int)(offset - StartOf(block))..]);
                if (await StoreAsync(user, block, block + 1, whole, BlockState.Changed, cancellationToken).ConfigureAwait(false)
                    > block)
                {
                    return;
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
        await WriteAroundAsync(user, block, data, offset, RequestFlags.None, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Writes a part of a block that is in the store there; false if it is not there, or cannot be written, in which case it
    /// is there no more unless it was changed.
    /// </summary>
    private async ValueTask<bool> TryUpdateAsync(
        long block, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        SlotRun run = _index.Find(block, block + 1);
        if (run.Count == 0)
        {
            return false;
        }
        try
        {
            long inBlock = offset - StartOf(block);
            await _store.WriteAsync(data, SlotOffset(run.Slot) + inBlock, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (Exception e)
        {
            _index.Drop(block, block + 1, unchangedOnly: true);
            if (e is OperationCanceledException && cancellationToken.IsCancellationRequested)
            {
                throw;
            }
            return false;
        }
    }

    /// <summary>Writes a part of a block below because the store does not take it, with what the store holds of it.</summary>
    private async ValueTask WriteAroundAsync(
        CacheUser user,
        long block,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        if (_index.Run(block, block + 1, out _) != BlockState.Changed)
        {
            await WriteBelowAsync(user, data, offset, flags, cancellationToken).ConfigureAwait(false);
            _index.Drop(block, block + 1, unchangedOnly: true);
            return;
        }
        int length = LengthOf(block, block + 1);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            Memory<byte> whole = buffer.AsMemory(0, length);
            await ReadStoredAsync(user, BlockState.Changed, whole, StartOf(block), cancellationToken).ConfigureAwait(false);
            data.CopyTo(whole[(int)(offset - StartOf(block))..]);
            await WriteBelowAsync(user, whole, StartOf(block), flags, cancellationToken).ConfigureAwait(false);
            _index.Drop(block, block + 1, unchangedOnly: false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Stores whole blocks, which the caller holds.</summary>
    /// <param name="writer">May write other blocks below to make room; null if no room is made that way.</param>
    /// <param name="first">The first block.</param>
    /// <param name="end">The first block after the last.</param>
    /// <param name="data">Their content.</param>
    /// <param name="state">Their new state.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The first block for which there was no room.</returns>
    private async ValueTask<long> StoreAsync(
        CacheUser? writer,
        long first,
        long end,
        ReadOnlyMemory<byte> data,
        BlockState state,
        CancellationToken cancellationToken)
    {
        bool hasReclaimed = false;
        for (long at = first; at < end;)
        {
            SlotRun run = _index.Take(at, end);
            if (run.Count == 0 || !await TryStoreAsync(at, run, PartOf(data, first, at, run.Count), cancellationToken).ConfigureAwait(false))
            {
                if (hasReclaimed || !await MakeRoomAsync(writer, (int)Math.Min(end - at, _piece), cancellationToken).ConfigureAwait(false))
                {
                    return at;
                }
                hasReclaimed = true;
                continue;
            }
            _index.Commit(at, run, state);
            at += run.Count;
            hasReclaimed = false;
        }
        return end;
    }

    private ReadOnlyMemory<byte> PartOf(ReadOnlyMemory<byte> data, long first, long at, int count)
        => data.Slice((int)(StartOf(at) - StartOf(first)), LengthOf(at, at + count));

    private async ValueTask<bool> TryStoreAsync(
        long first, SlotRun run, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        try
        {
            await _store.WriteAsync(data, SlotOffset(run.Slot), cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (Exception e)
        {
            if (run.IsNew)
            {
                _index.GiveBack(run);
            }
            else
            {
                _index.Drop(first, first + run.Count, unchangedOnly: true);
            }
            if (e is OperationCanceledException && cancellationToken.IsCancellationRequested)
            {
                throw;
            }
            return false;
        }
    }
}
