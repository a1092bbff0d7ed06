using NbdKit.Buffers;

namespace NbdKit.Filters;

/// <summary>One context of <see cref="BlockSizePolicyFilter"/>.</summary>
internal sealed class BlockSizePolicyHandle(BlockSizePolicyFilter filter, NbdConnection? connection)
    : INbdFilterHandle, ILendingFilter
{
    private long _size;

    // What requests must keep: less than what is advertised, if that is only advice.
    private BlockSize _required;

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        BlockSize advertised = filter.Over(info.BlockSize);
        bool allows = filter.ErrorPolicy == BlockSizeErrorPolicy.Allow;
        _size = info.Size;
        _required = !allows ? advertised : info.BlockSizeIsAdvice ? default : info.BlockSize;
        return new(info with { BlockSize = advertised, BlockSizeIsAdvice = allows });
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
        Require(offset, length, isData: false);
        return next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => Fault(offset, length, isData: true) is null
            && !(forWrite && length > filter.WriteDisconnect)
            && next.TryLend(offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    private void Require(long offset, long length, bool isData)
    {
        if (Fault(offset, length, isData) is { } fault)
        {
            throw new NbdException(NbdError.InvalidArgument, $"{length} bytes at {offset} {fault}");
        }
    }

    private string? Fault(long offset, long length, bool isData)
    {
        long mask = Math.Max(1, _required.Minimum) - 1;
        bool mayBeShort = filter.ErrorPolicy != BlockSizeErrorPolicy.StrictError && length == _size - offset;
        if ((offset & mask) != 0 || ((length & mask) != 0 && !mayBeShort))
        {
            return $"are not aligned to the minimum block size of {_required.Minimum}";
        }
        return isData && _required.Maximum > 0 && length > _required.Maximum
            ? $"are more than the maximum block size of {_required.Maximum}"
            : null;
    }
}
