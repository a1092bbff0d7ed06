using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

// Zeroes and trims go below at once: it knows how to do them, and takes all their flags. Then the store follows.
internal sealed partial class CacheImage
{
    public async ValueTask ZeroAsync(
        CacheUser user, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long end = offset + length;
        long limit = BlockOf(end - 1) + 1;
        using RangeLock.Holder held = await _locks.EnterAsync(BlockOf(offset), limit, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            await user.Next.ZeroAsync(offset, length, Below(user, flags), cancellationToken).ConfigureAwait(false);
            await CompleteBelowAsync(user, flags, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // A fast zero that is declined changed nothing.
            if (e is not NbdException { Error: NbdError.NotSupported })
            {
                _index.Drop(BlockOf(offset), limit, unchangedOnly: true);
            }
            throw;
        }
        (long first, long last) = DropWhole(offset, end);
        if (first > BlockOf(offset))
        {
            await ZeroPartAsync(user, offset, Math.Min(end, EndOf(BlockOf(offset))), flags, cancellationToken).ConfigureAwait(false);
        }
        if (last < limit && last >= first)
        {
            await ZeroPartAsync(user, StartOf(last), end, flags, cancellationToken).ConfigureAwait(false);
        }
    }

    public async ValueTask TrimAsync(
        CacheUser user, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long limit = BlockOf(offset + length - 1) + 1;
        using RangeLock.Holder held = await _locks.EnterAsync(BlockOf(offset), limit, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            await user.Next.TrimAsync(offset, length, Below(user, flags), cancellationToken).ConfigureAwait(false);
            await CompleteBelowAsync(user, flags, cancellationToken).ConfigureAwait(false);
            DropWhole(offset, offset + length);
        }
        finally
        {
            // What the range holds now is what is below, except for blocks at its ends that hold back other changes: those
            // keep what they have, of which nothing is promised.
            _index.Drop(BlockOf(offset), limit, unchangedOnly: true);
        }
    }

    /// <summary>Forgets the blocks that lie within a range, changed or not; returns which those are.</summary>
    private (long First, long End) DropWhole(long offset, long end)
    {
        long first = offset == StartOf(BlockOf(offset)) ? BlockOf(offset) : BlockOf(offset) + 1;
        long last = end == Size ? Blocks : BlockOf(end);
        if (first < last)
        {
            _index.Drop(first, last, unchangedOnly: false);
        }
        return (first, last);
    }

    private async ValueTask ZeroPartAsync(
        CacheUser user, long from, long to, RequestFlags flags, CancellationToken cancellationToken)
    {
        int length = (int)(to - from);
        ReadOnlyMemory<byte> zeroes = length > PieceBytes ? new byte[length] : Zeroes.AsMemory(0, length);
        if (!await TryUpdateAsync(BlockOf(from), zeroes, from, cancellationToken).ConfigureAwait(false)
            && _index.Run(BlockOf(from), BlockOf(from) + 1, out _) == BlockState.Changed)
        {
            await WriteAroundAsync(user, BlockOf(from), zeroes, from, flags & RequestFlags.Fua, cancellationToken)
                .ConfigureAwait(false);
        }
    }
}
