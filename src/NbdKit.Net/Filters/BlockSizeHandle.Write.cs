using System.Buffers;
using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters;

// Writes and zeroes. Whole blocks are entered shared: they may pass each other, but not land between the reading and
// the writing back of a block that is changed in part, which is entered alone. One piece holds its range at a time.
internal sealed partial class BlockSizeHandle
{
    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        if (!IsAligned(offset, data.Length) || data.Length > _maxData)
        {
            return WritePiecesAsync(next, data, offset, flags, cancellationToken);
        }
        // Where every byte is a block of its own, nothing is ever read and written back.
        return _block == 1
            ? next.WriteAsync(data, offset, flags, cancellationToken)
            : WriteBlocksAsync(next, data, offset, flags, cancellationToken);
    }

    public async ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        // A refusal after a part was zeroed would be neither fast nor without effect.
        if ((flags & RequestFlags.FastZero) != 0 && (!IsAligned(offset, length) || length > _maxLength))
        {
            throw new NbdException(
                NbdError.NotSupported, "a zero that is not aligned to blocks, or is to be split, is not fast");
        }
        while (length > 0)
        {
            int skip = (int)(offset & (_block - 1));
            long count;
            if (skip == 0 && length >= _block)
            {
                count = Math.Min(RoundDown(length), _maxLength);
                await ZeroBlocksAsync(next, offset, count, flags, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                count = Math.Min(length, _block - skip);
                await ChangeBlockAsync(next, default, (int)count, offset, flags & RequestFlags.Fua, cancellationToken)
                    .ConfigureAwait(false);
            }
            offset += count;
            length -= count;
        }
    }

    private async ValueTask WritePiecesAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        while (!data.IsEmpty)
        {
            int skip = (int)(offset & (_block - 1));
            int count;
            if (skip == 0 && data.Length >= _block)
            {
                count = (int)Math.Min(RoundDown(data.Length), _maxData);
                await WriteBlocksAsync(next, data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                count = Math.Min(data.Length, _block - skip);
                await ChangeBlockAsync(next, data[..count], count, offset, flags, cancellationToken)
                    .ConfigureAwait(false);
            }
            data = data[count..];
            offset += count;
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WriteBlocksAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        RangeLock.Holder held = await _locks.EnterAsync(
            offset, offset + data.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            await next.WriteAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _locks.Exit(held);
        }
    }

    private async ValueTask ZeroBlocksAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RangeLock.Holder held = await _locks.EnterAsync(
            offset, offset + length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            await next.ZeroAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _locks.Exit(held);
        }
    }

    /// <summary>Reads a block, changes a part of it, and writes it back.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="data">The new bytes, or empty for zeroes.</param>
    /// <param name="count">Number of bytes that change, all in one block.</param>
    /// <param name="offset">First byte that changes.</param>
    /// <param name="flags">Force unit access or none.</param>
    /// <param name="cancellationToken">Gives up.</param>
    private async ValueTask ChangeBlockAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        int count,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        long start = RoundDown(offset);
        RangeLock.Holder held = await _locks.EnterAsync(start, start + _block, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        byte[] bounce = ArrayPool<byte>.Shared.Rent(_block);
        try
        {
            Memory<byte> block = bounce.AsMemory(0, _block);
            await next.ReadAsync(block, start, cancellationToken).ConfigureAwait(false);
            Span<byte> part = block.Span.Slice((int)(offset - start), count);
            if (data.IsEmpty)
            {
                part.Clear();
            }
            else
            {
                data.Span.CopyTo(part);
            }
            await next.WriteAsync(block, start, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bounce);
            _locks.Exit(held);
        }
    }
}
