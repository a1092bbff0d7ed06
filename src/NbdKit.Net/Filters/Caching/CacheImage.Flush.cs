using System.Buffers;
using System.Runtime.ExceptionServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

// Writing changed blocks below, and flushing.
internal sealed partial class CacheImage
{
    private static readonly ParallelOptions WalkOptions = new() { MaxDegreeOfParallelism = 8 };

    /// <summary>
    /// Writes all changed blocks below and flushes there, for all contexts. A block that cannot be written stays as it is and
    /// does not keep the others from being written; the first error is thrown at the end.
    /// </summary>
    public async ValueTask FlushAsync(CacheUser user, CancellationToken cancellationToken)
    {
        if (_mode == CacheMode.Unsafe)
        {
            return;
        }
        if (IsWriteThrough)
        {
            await user.Next.FlushAsync(cancellationToken).ConfigureAwait(false);
            return;
        }
        if (user.CanWrite || Changed == 0)
        {
            await WriteOutAsync(user, cancellationToken).ConfigureAwait(false);
            return;
        }
        CacheUser writer = Borrow()
            ?? throw new NbdException(NbdError.IoError, $"{Changed} blocks are held back, and no connection can write them");
        try
        {
            await WriteOutAsync(writer, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            writer.GiveBack();
        }
    }

    /// <summary>The same in every mode, through a context that can write or has nothing to write.</summary>
    public async ValueTask WriteOutAsync(CacheUser user, CancellationToken cancellationToken)
    {
        Exception? failure = await WriteChangedAsync(user, cancellationToken).ConfigureAwait(false);
        try
        {
            await user.FlushAsync(evenIfUnused: true, cancellationToken).ConfigureAwait(false);
            if (!user.Next.Info.CanMultiConn)
            {
                await FlushOthersAsync(user, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e)
        {
            failure ??= e;
        }
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    /// <summary>A flush of one context below does not cover what went through others: each has to flush its own.</summary>
    private async ValueTask FlushOthersAsync(CacheUser user, CancellationToken cancellationToken)
    {
        CacheUser[] others;
        lock (_lock)
        {
            others = [.. _writers.Where(other => other != user)];
        }
        Exception? failure = null;
        foreach (CacheUser other in others)
        {
            Exception? one = await FlushOtherAsync(other, cancellationToken).ConfigureAwait(false);
            failure ??= one;
        }
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    private static async ValueTask<Exception?> FlushOtherAsync(CacheUser other, CancellationToken cancellationToken)
    {
        if (!other.TryBorrow())
        {
            // Its own end flushes it.
            return await other.Left.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            await other.FlushAsync(evenIfUnused: false, cancellationToken).ConfigureAwait(false);
            return null;
        }
        catch (Exception e)
        {
            return e;
        }
        finally
        {
            other.GiveBack();
        }
    }

    /// <summary>Writes the blocks below that are changed now; returns the first error.</summary>
    private async ValueTask<Exception?> WriteChangedAsync(CacheUser user, CancellationToken cancellationToken)
    {
        Exception? failure = null;
        // Who comes second writes only what was changed since, but does not go on before the first is done.
        await _walk.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (Changed > 0)
            {
                await Parallel.ForEachAsync(ChangedPieces(), WalkOptions, async (piece, _) =>
                {
                    try
                    {
                        using RangeLock.Holder held = await _locks
                            .EnterAsync(piece.First, piece.End, exclusive: false, cancellationToken).ConfigureAwait(false);
                        await WriteHeldAsync(user, piece.First, piece.End, cancellationToken).ConfigureAwait(false);
                    }
                    catch (Exception e)
                    {
                        Interlocked.CompareExchange(ref failure, e, null);
                    }
                }).ConfigureAwait(false);
            }
        }
        finally
        {
            _walk.Release();
        }
        return failure;
    }

    private IEnumerable<(long First, long End)> ChangedPieces()
    {
        for (long at = 0; at < Blocks && Changed > 0;)
        {
            BlockState state = _index.Run(at, Blocks, out long end);
            for (; state == BlockState.Changed && at < end; at += _piece)
            {
                yield return (at, Math.Min(end, at + _piece));
            }
            at = end;
        }
    }

    /// <summary>Writes the changed blocks of a range below; the caller holds them.</summary>
    private async ValueTask WriteHeldAsync(CacheUser user, long first, long end, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(LengthOf(first, end));
        try
        {
            for (long at = first; at < end;)
            {
                if (_index.Run(at, end, out long to) == BlockState.Changed)
                {
                    Memory<byte> data = buffer.AsMemory(0, LengthOf(at, to));
                    await ReadStoredAsync(user, BlockState.Changed, data, StartOf(at), cancellationToken).ConfigureAwait(false);
                    await WriteBelowAsync(user, data, StartOf(at), RequestFlags.None, cancellationToken).ConfigureAwait(false);
                    _index.Mark(at, to, BlockState.Stored);
                }
                at = to;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
