using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>One context of <see cref="BlockSizePolicyFilter"/>.</summary>
internal sealed class BlockSizePolicyHandle(BlockSizePolicyFilter filter, NbdConnection? connection)
    : INbdFilterHandle, ILendingFilter
{
    private long _size;

    // What requests must keep: what the layer below needs, and what is advertised unless that is only advice.
    private long _minimum = 1;
    private long _maximum = long.MaxValue;

    // The borders of extents are multiples of this.
    private long _border = 1;

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        BlockSize advertised = filter.Over(info.BlockSize);
        bool allows = filter.ErrorPolicy == BlockSizeErrorPolicy.Allow;
        _size = info.Size;
        Keep(info.BlockSizeIsAdvice ? default : info.BlockSize);
        Keep(allows ? default : advertised);
        _border = Math.Max(_minimum, advertised.Minimum);
        return new(info with
        {
            BlockSize = advertised,
            BlockSizeIsAdvice = allows,
            // What is emulated is emulated below, in pieces that suit the layer there, and is no write of the client's.
            CanZero = info.CanZero.ComesThrough(),
            CanCache = info.CanCache.ComesThrough(),
        });
    }

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Require(offset, buffer.Length, isData: true);
        return next.ReadAsync(buffer, offset, cancellationToken);
    }

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        Require(offset, buffer.Length, isData: true);
        return next.ReadSparseAsync(buffer, offset, extents, cancellationToken);
    }

    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        if (data.Length > filter.WriteDisconnect)
        {
            connection?.Disconnect(force: true);
            throw new NbdException(
                NbdError.Shutdown, $"a write of {data.Length} bytes is more than the {filter.WriteDisconnect} that are tolerated");
        }
        Require(offset, data.Length, isData: true);
        return next.WriteAsync(data, offset, flags, cancellationToken);
    }

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Require(offset, length, isData: false);
        return next.TrimAsync(offset, length, flags, cancellationToken);
    }

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Require(offset, length, isData: false);
        return next.ZeroAsync(offset, length, flags, cancellationToken);
    }

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        Require(offset, length, isData: false);
        return next.CacheAsync(offset, length, cancellationToken);
    }

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        if (extents.MetaContext != ExtentList.BaseAllocation)
        {
            // Only the status bits of base:allocation can be combined, so the borders stay inside blocks, and the rest is asked for
            // from there.
            return next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
        }
        // A short tail is no fault here: the server itself rounds a question up to the end.
        Require(offset, length, isData: false, refusesTail: false);
        return _border > 1
            ? next.ExtentsAlignedAsync(offset, length, _border, extents, cancellationToken)
            : next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => Fault(offset, length, isData: true) is null
            && !(forWrite && length > filter.WriteDisconnect)
            && next.TryLend(offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    private void Keep(BlockSize blockSize)
    {
        _minimum = Math.Max(_minimum, blockSize.Minimum);
        if (blockSize.Maximum is > 0 and < BlockSize.Unlimited)
        {
            _maximum = Math.Min(_maximum, blockSize.Maximum);
        }
    }

    private void Require(long offset, long length, bool isData, bool refusesTail = true)
    {
        if (Fault(offset, length, isData, refusesTail) is { } fault)
        {
            throw new NbdException(NbdError.InvalidArgument, $"{length} bytes at {offset} {fault}");
        }
    }

    private string? Fault(long offset, long length, bool isData, bool refusesTail = true)
    {
        long mask = _minimum - 1;
        bool mayBeShort = length == _size - offset
            && !(refusesTail && filter.ErrorPolicy == BlockSizeErrorPolicy.StrictError);
        if ((offset & mask) != 0 || ((length & mask) != 0 && !mayBeShort))
        {
            return $"are not aligned to the minimum block size of {_minimum}";
        }
        return isData && length > _maximum ? $"are more than the maximum block size of {_maximum}" : null;
    }
}
