using NbdKit.Buffers;

namespace NbdKit.Filters;

/// <summary>One context of <see cref="TruncateFilter"/>. The sizes are those of its own layer below.</summary>
internal sealed class TruncateHandle(TruncateFilter filter) : INbdFilterHandle, ILendingFilter
{
    private static readonly string[] OnlyAllocation = [ExtentList.BaseAllocation];

    private long _size;

    // The end of what exists in the layer below and is served.
    private long _real;

    public bool KeepsNext => true;

    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        _size = filter.SizeOver(next);
        _real = Math.Min(_size, next.Info.Size);
        return default;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        if (_size <= info.Size)
        {
            return new(info with { Size = _size });
        }
        return new(info with
        {
            Size = _size,
            // What was added is known to be a hole, whatever the layer below knows.
            CanExtents = true,
            MetaContexts = info.CanExtents ? info.MetaContexts : OnlyAllocation,
            WideMetaContexts = info.CanExtents ? info.WideMetaContexts : [],
            CanReadSparse = Support.Native,
        });
    }

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        int real = (int)RealPart(offset, buffer.Length);
        buffer.Span[real..].Clear();
        return real == 0 ? default : next.ReadAsync(buffer[..real], offset, cancellationToken);
    }

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => RealPart(offset, buffer.Length) == buffer.Length
            ? next.ReadSparseAsync(buffer, offset, extents, cancellationToken)
            : ReadAcrossAsync(next, buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        int real = (int)RealPart(offset, data.Length);
        if (real < data.Length && data.Span[real..].ContainsAnyExcept((byte)0))
        {
            throw new NbdException(
                NbdError.NoSpace, $"only zeroes can be written beyond the {_real} bytes that {next.Backend.Name} has");
        }
        return real == 0 ? default : next.WriteAsync(data[..real], offset, flags, cancellationToken);
    }

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RealPart(offset, length) is > 0 and var real
            ? next.TrimAsync(offset, real, flags, cancellationToken)
            : default;

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RealPart(offset, length) is > 0 and var real
            ? next.ZeroAsync(offset, real, flags, cancellationToken)
            : default;

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => RealPart(offset, length) is > 0 and var real ? next.CacheAsync(offset, real, cancellationToken) : default;

    public async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long real = RealPart(offset, length);
        if (real > 0)
        {
            // The window keeps what the layer below knows beyond a cut from leaking into the answer.
            var below = new ExtentList(offset, Math.Min(_real, extents.End), extents.MetaContext);
            await next.ExtentsAsync(offset, real, flags, below, cancellationToken).ConfigureAwait(false);
            foreach (Extent extent in below)
            {
                extents.Add(extent.Offset, extent.Length, extent.Status);
            }
            if (below.Covered < _real)
            {
                return;
            }
        }
        long from = Math.Max(offset, _real);
        // In other contexts 0 is what was never allocated, or never written.
        extents.Add(
            from, _size - from, extents.MetaContext == ExtentList.BaseAllocation ? ExtentStatus.Hole | ExtentStatus.Zero : 0);
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => RealPart(offset, length) == length && next.TryLend(offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    private long RealPart(long offset, long length) => Math.Clamp(_real - offset, 0, length);

    private async ValueTask ReadAcrossAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        int real = (int)RealPart(offset, buffer.Length);
        if (real > 0)
        {
            var below = new ExtentList(offset, offset + real, maximumCount: int.MaxValue);
            await next.ReadSparseAsync(buffer[..real], offset, below, cancellationToken).ConfigureAwait(false);
            foreach (Extent extent in below)
            {
                extents.Add(extent.Offset, extent.Length, extent.Status);
            }
            // What the layer below said nothing about is in the buffer.
            long covered = below.Covered;
            extents.Add(covered, offset + real - covered, ExtentStatus.Data);
        }
        extents.Add(offset + real, buffer.Length - real, ExtentStatus.Hole | ExtentStatus.Zero);
    }
}
