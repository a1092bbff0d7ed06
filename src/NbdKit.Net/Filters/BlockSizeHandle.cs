using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>One context of the blocksize filter: the limits that apply to it, and all that carries no data.</summary>
internal sealed partial class BlockSizeHandle : INbdFilterHandle
{
    private const int DefaultMaxData = 64 << 20;

    private readonly BlockSizeFilter _filter;
    private readonly RangeLock _locks;
    private int _block = 1;
    private int _maxData;
    private long _maxLength;

    public BlockSizeHandle(BlockSizeFilter filter, RangeLock locks)
    {
        _filter = filter;
        _locks = locks;
    }

    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        BlockSize below = next.Info.BlockSize;
        _block = (int)Math.Max(_filter.MinBlock ?? 1, Math.Max(below.Minimum, 1));
        long maxLength = _filter.MaxLength ?? long.MaxValue;
        long maxData = _filter.MaxData ?? Math.Min(maxLength, DefaultMaxData);
        if (below.Maximum > 0)
        {
            maxData = Math.Min(maxData, below.Maximum);
        }
        _maxData = (int)RoundDown(maxData);
        _maxLength = RoundDown(maxLength);
        if (_maxData == 0 || _maxLength == 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"maxdata or maxlen is smaller than the block of {_block} bytes that {next.Backend.Name} needs");
        }
        return default;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            Size = RoundDown(next.Info.Size),
            BlockSize = new BlockSize(1, Math.Max(Math.Max(next.Info.BlockSize.Preferred, 4096), _block)),
        });

    public async ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        // Nobody has to be kept away: what a trimmed block holds is undefined, also after it was read and written back.
        long end = RoundDown(offset + length);
        long start = RoundUp(offset);
        while (start < end)
        {
            long count = Math.Min(end - start, _maxLength);
            await next.TrimAsync(start, count, flags, cancellationToken).ConfigureAwait(false);
            start += count;
        }
    }

    public async ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        long end = RoundUp(offset + length);
        long start = RoundDown(offset);
        while (start < end)
        {
            long count = Math.Min(end - start, _maxData);
            await next.CacheAsync(start, count, cancellationToken).ConfigureAwait(false);
            start += count;
        }
    }

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        // An answer may stop early, so only one question is asked.
        long start = RoundDown(offset);
        length = Math.Min(length, _maxLength - (offset - start));
        if (_block == 1)
        {
            return next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
        }
        return flags == RequestFlags.None && extents.MetaContext == ExtentList.BaseAllocation
            ? next.ExtentsAlignedAsync(offset, length, _block, extents, cancellationToken)
            : ExtentsRoundedAsync(next, offset, length, flags, extents, cancellationToken);
    }

    private async ValueTask ExtentsRoundedAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long start = RoundDown(offset);
        long end = RoundUp(offset + length);
        var below = new ExtentList(start, Math.Max(end, extents.End), extents.MetaContext);
        await next.ExtentsAsync(start, end - start, flags, below, cancellationToken).ConfigureAwait(false);
        if (extents.MetaContext != ExtentList.BaseAllocation)
        {
            // Only the bits of base:allocation may be dropped where a block is mixed: in a bitmap of what has changed,
            // it would hide changes. So the borders stay where they are.
            for (int i = 0; i < below.Count && !extents.IsFull; i++)
            {
                extents.Add(below[i].Offset, below[i].Length, below[i].Status);
            }
            return;
        }
        long whole = RoundDown(below[0].End - start);
        if (whole > 0)
        {
            extents.Add(start, whole, below[0].Status);
            return;
        }
        // The first block is mixed; one that follows it is not asked for.
        length = Math.Min(length, _block - (offset - start));
        await next.ExtentsAlignedAsync(offset, length, _block, extents, cancellationToken).ConfigureAwait(false);
    }

    private long RoundDown(long value) => value & -_block;

    // Never overflows where it is used: the size of the export is a multiple of the block.
    private long RoundUp(long value) => (value + (_block - 1)) & -_block;

    bool INbdFilterHandle.KeepsNext => true;
}
