using System.Buffers;

namespace NbdKit.Copy;

/// <summary>
/// Reads what it is given to write, and looks for a difference. The source plays its part as in the copy before.
/// </summary>
internal sealed class CompareTarget(IReadOnlyList<NextContext> contexts, CopyGeometry geometry, bool useExtents) : CopyTarget
{
    private readonly Lock _lock = new();
    private readonly NbdExportInfo _info = contexts[0].Info;
    private long _difference = long.MaxValue;

    /// <summary>The lowest offset at which a difference was found so far, or 2^63-1.</summary>
    public long Difference => Volatile.Read(ref _difference);

    public override bool WantsZeroes => false;

    public override long ZeroPiece => 64 << 20;

    public override async ValueTask WriteAsync(
        int lane, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(Covered(offset, data.Length));
        try
        {
            Memory<byte> there = buffer.AsMemory(0, data.Length);
            await ReadAsync(lane, buffer, offset, data.Length, cancellationToken).ConfigureAwait(false);
            int same = data.Span.CommonPrefixLength(there.Span);
            if (same < data.Length)
            {
                Found(offset + same);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public override async ValueTask ZeroAsync(int lane, long offset, long length, CancellationToken cancellationToken)
    {
        long end = offset + length;
        while (offset < end)
        {
            if (await ZeroesAtAsync(lane, offset, end, cancellationToken).ConfigureAwait(false) is > 0 and long zeroes)
            {
                offset += zeroes;
                continue;
            }
            int count = (int)Math.Min(end - offset, geometry.Chunk);
            byte[] buffer = ArrayPool<byte>.Shared.Rent(Covered(offset, count));
            try
            {
                await ReadAsync(lane, buffer, offset, count, cancellationToken).ConfigureAwait(false);
                int zero = buffer.AsSpan(0, count).IndexOfAnyExcept((byte)0);
                if (zero >= 0)
                {
                    Found(offset + zero);
                    return;
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
            offset += count;
        }
    }

    public override ValueTask ZeroAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken)
        => WriteAsync(lane, zeroes, offset, cancellationToken);

    /// <summary>How many bytes from an offset on the destination says are zeroes.</summary>
    private async ValueTask<long> ZeroesAtAsync(int lane, long offset, long end, CancellationToken cancellationToken)
    {
        if (!useExtents || !_info.CanExtents || !_info.MetaContexts.Contains(ExtentList.BaseAllocation))
        {
            return 0;
        }
        long length = Covered(offset, end - offset);
        var extents = new ExtentList(offset, offset + length, ExtentList.BaseAllocation, 1);
        await contexts[lane % contexts.Count].ExtentsAsync(
            offset, length, RequestFlags.RequestOne, extents, cancellationToken).ConfigureAwait(false);
        long zeroes = (extents[0].Status & ExtentStatus.Zero) == 0 ? 0 : Math.Min(extents[0].Length, end - offset);
        // What follows must begin where a read may.
        return zeroes == end - offset ? zeroes : zeroes & -(long)geometry.Alignment;
    }

    private async ValueTask ReadAsync(int lane, byte[] buffer, long offset, int length, CancellationToken cancellationToken)
    {
        NextContext context = contexts[lane % contexts.Count];
        int covered = Covered(offset, length);
        for (int done = 0; done < covered;)
        {
            int count = Math.Min(covered - done, geometry.DestinationSlice);
            await context.ReadAsync(buffer.AsMemory(done, count), offset + done, cancellationToken).ConfigureAwait(false);
            done += count;
        }
    }

    private int Covered(long offset, int length) => (int)Covered(offset, (long)length);

    /// <summary>The length of a range with the rest of the block that it ends in.</summary>
    private long Covered(long offset, long length)
    {
        long block = Math.Max(1, _info.BlockSize.Minimum);
        long over = (offset + length) & (block - 1);
        return over == 0 ? length : Math.Min(length + block - over, _info.Size - offset);
    }

    private void Found(long offset)
    {
        lock (_lock)
        {
            _difference = Math.Min(_difference, offset);
        }
    }
}
