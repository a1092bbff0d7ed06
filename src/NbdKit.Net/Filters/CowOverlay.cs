using System.Buffers;
using System.Numerics;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>The overlay of one export: which blocks are in it, and their content. Shared by all contexts of the export.</summary>
/// <remarks>
/// <para>
/// The state of a block changes only under its lock, and to <see cref="BlockState.Stored"/> only after the whole block is in
/// the store. Requests that meet nothing but stored blocks take no lock: a write that overtakes a trim of the same bytes may
/// be lost with them, as it may on any disk.
/// </para>
/// <para>Everything else that writes holds the lock of its blocks, so that no copy from below undoes another write.</para>
/// </remarks>
internal sealed partial class CowOverlay : IDisposable
{
    private const int CopyBytes = 1 << 20;

    // Never written to.
    private static readonly byte[] Zeroes = new byte[CopyBytes];

    private readonly BlockMap _map;
    private readonly RangeLock _locks = new();
    private readonly IOverlayStore _store;
    private readonly int _shift;

    public CowOverlay(long size, int blockSize, IOverlayStore store)
    {
        Size = size;
        BlockSize = blockSize;
        _shift = BitOperations.Log2((uint)blockSize);
        _store = store;
        _map = new BlockMap(size == 0 ? 0 : ((size - 1) >> _shift) + 1);
    }

    public long Size { get; }

    public int BlockSize { get; }

    /// <summary>The number of contexts that use it; guarded by the filter.</summary>
    public int Users { get; set; }

    /// <summary>Whether nothing was ever brought into it.</summary>
    public bool IsEmpty => _map.IsEmpty;

    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long first = BlockOf(offset);
        long limit = BlockOf(offset + data.Length - 1) + 1;
        return _map.Run(first, limit, out long end) == BlockState.Stored && end == limit
            ? _store.WriteAsync(data, offset, cancellationToken)
            : WriteNewAsync(next, data, offset, cancellationToken);
    }

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if ((flags & RequestFlags.MayTrim) != 0)
        {
            return TrimAsync(next, offset, length, (flags & RequestFlags.FastZero) != 0, cancellationToken);
        }
        if ((flags & RequestFlags.FastZero) != 0)
        {
            throw new NbdException(NbdError.NotSupported, "zeroes that must keep their space are written, which is not fast");
        }
        return WriteZeroesAsync(next, offset, length, cancellationToken);
    }

    public void Dispose() => _store.Dispose();

    private async ValueTask WriteNewAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long end = offset + data.Length;
        long first = BlockOf(offset);
        long last = BlockOf(end - 1);
        using RangeLock.Holder held = await _locks.EnterAsync(first, last + 1, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        // Everything but a part of a block that is not stored goes straight to the store, in one call.
        long from = offset;
        long to = end;
        if ((offset > StartOf(first) || end < EndOf(first)) && _map[first] != BlockState.Stored)
        {
            from = Math.Min(end, EndOf(first));
            await FillAsync(next, first, data[..(int)(from - offset)], offset, cancellationToken).ConfigureAwait(false);
        }
        if (from < end && end < EndOf(last) && _map[last] != BlockState.Stored)
        {
            to = StartOf(last);
        }
        if (from < to)
        {
            await _store.WriteAsync(data.Slice((int)(from - offset), (int)(to - from)), from, cancellationToken)
                .ConfigureAwait(false);
            _map.Set(BlockOf(from), BlockOf(to - 1) + 1, BlockState.Stored);
        }
        if (to < end)
        {
            await FillAsync(next, last, data[(int)(to - offset)..], to, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Stores a block that is not stored yet: what is below, or zeroes, with data over it.</summary>
    private async ValueTask FillAsync(
        NextContext next, long block, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long start = StartOf(block);
        int length = (int)(EndOf(block) - start);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            Memory<byte> whole = buffer.AsMemory(0, length);
            if (_map[block] == BlockState.Trimmed)
            {
                whole.Span.Clear();
            }
            else
            {
                await next.ReadInPiecesAsync(whole, start, cancellationToken).ConfigureAwait(false);
            }
            data.CopyTo(whole[(int)(offset - start)..]);
            await _store.WriteAsync(whole, start, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
        _map.Set(block, block + 1, BlockState.Stored);
    }

    private async ValueTask WriteZeroesAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        long end = offset + length;
        while (offset < end)
        {
            // Each piece ends with a block, so that only the ends of the range are parts of one.
            long aligned = (offset + CopyBytes) & -(long)BlockSize;
            long to = end - offset <= CopyBytes ? end : aligned > offset ? aligned : offset + CopyBytes;
            await WriteAsync(next, Zeroes.AsMemory(0, (int)(to - offset)), offset, cancellationToken).ConfigureAwait(false);
            offset = to;
        }
    }

    private async ValueTask TrimAsync(
        NextContext next, long offset, long length, bool fast, CancellationToken cancellationToken)
    {
        long end = offset + length;
        long first = BlockOf(offset);
        long last = BlockOf(end - 1);
        using RangeLock.Holder held = await _locks.EnterAsync(first, last + 1, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        long wholeFirst = offset == StartOf(first) ? first : first + 1;
        long wholeEnd = end == EndOf(last) ? last + 1 : last;
        bool hasHead = wholeFirst > first || (first == last && wholeEnd == last);
        bool hasTail = wholeEnd == last && last > first;
        if (fast && (IsSlow(hasHead, first, wholeFirst < wholeEnd) || IsSlow(hasTail, last, wholeFirst < wholeEnd)))
        {
            throw new NbdException(NbdError.NotSupported, "a part of a block would have to be written, which is not fast");
        }
        if (hasHead)
        {
            await ZeroPartAsync(next, first, offset, Math.Min(end, EndOf(first)), cancellationToken).ConfigureAwait(false);
        }
        if (hasTail)
        {
            await ZeroPartAsync(next, last, StartOf(last), end, cancellationToken).ConfigureAwait(false);
        }
        if (wholeFirst < wholeEnd)
        {
            _map.Set(wholeFirst, wholeEnd, BlockState.Trimmed);
            _store.Discard(StartOf(wholeFirst), EndOf(wholeEnd - 1) - StartOf(wholeFirst));
        }
    }

    // A part of a block that has to be copied from below may take any time; one that is stored costs a small write, which is
    // fast only next to whole blocks that would otherwise have been written too.
    private bool IsSlow(bool part, long block, bool besideWhole)
        => part && _map[block] is var state && state != BlockState.Trimmed
            && !(state == BlockState.Stored && besideWhole);

    private async ValueTask ZeroPartAsync(
        NextContext next, long block, long from, long to, CancellationToken cancellationToken)
    {
        switch (_map[block])
        {
            case BlockState.Trimmed:
                return;
            case BlockState.Stored:
                for (; from < to; from += CopyBytes)
                {
                    await _store.WriteAsync(Zeroes.AsMemory(0, (int)Math.Min(CopyBytes, to - from)), from, cancellationToken)
                        .ConfigureAwait(false);
                }
                return;
            default:
                int length = (int)(to - from);
                byte[]? large = length > CopyBytes ? new byte[length] : null;
                await FillAsync(next, block, large ?? Zeroes.AsMemory(0, length), from, cancellationToken).ConfigureAwait(false);
                return;
        }
    }

    private long BlockOf(long offset) => offset >> _shift;

    private long StartOf(long block) => block << _shift;

    // The last block ends with the disk.
    private long EndOf(long block) => Size - StartOf(block) > BlockSize ? StartOf(block) + BlockSize : Size;
}
