using System.Buffers;

namespace NbdKit.Filters;

// Reads. They take no locks: one that runs beside a write may see the block before or after it, as without this filter.
internal sealed partial class BlockSizeHandle
{
    // Up to this size an unaligned read becomes one read of whole blocks; of a larger one only the ends are copied.
    private const int LargestBounce = 128 << 10;

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => IsAligned(offset, buffer.Length) && buffer.Length <= _maxData
            ? next.ReadAsync(buffer, offset, cancellationToken)
            : ReadPiecesAsync(next, buffer, offset, cancellationToken);

    private async ValueTask ReadPiecesAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        int largestBounce = Math.Min(LargestBounce, _maxData);
        while (!buffer.IsEmpty)
        {
            int skip = (int)(offset & (_block - 1));
            long covering = RoundUp(offset + buffer.Length) - (offset - skip);
            int count;
            if (skip == 0 && buffer.Length >= _block && (buffer.Length == covering || covering > largestBounce))
            {
                count = (int)Math.Min(RoundDown(buffer.Length), _maxData);
                await next.ReadAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                int span = covering <= largestBounce ? (int)covering : _block;
                count = Math.Min(buffer.Length, span - skip);
                await ReadPartAsync(next, buffer[..count], offset - skip, skip, span, cancellationToken)
                    .ConfigureAwait(false);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <summary>Reads whole blocks, and copies from them what is wanted.</summary>
    private static async ValueTask ReadPartAsync(
        NextContext next, Memory<byte> part, long start, int skip, int span, CancellationToken cancellationToken)
    {
        byte[] bounce = ArrayPool<byte>.Shared.Rent(span);
        try
        {
            await next.ReadAsync(bounce.AsMemory(0, span), start, cancellationToken).ConfigureAwait(false);
            bounce.AsSpan(skip, part.Length).CopyTo(part.Span);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bounce);
        }
    }

    private bool IsAligned(long offset, long length) => ((offset | length) & (_block - 1)) == 0;
}
