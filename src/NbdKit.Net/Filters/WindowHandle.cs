using NbdKit.Buffers;

namespace NbdKit.Filters;

/// <summary>
/// One context of a filter that serves a part of the layer below as a whole export: the filter finds the part while it is
/// prepared, and every request is moved into it.
/// </summary>
internal abstract class WindowHandle : INbdFilterHandle, ILendingFilter
{
    private long _start;
    private long _size;

    /// <summary>Finds the part, and tells it to <see cref="Show"/>.</summary>
    public abstract ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken);

    public virtual ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { Size = _size });

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset + _start, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset + _start);

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => next.ReadAsync(buffer, offset + _start, cancellationToken);

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Window.ReadSparseAsync(next, _start, buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
        => next.WriteAsync(data, offset + _start, flags, cancellationToken);

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset + _start, length, flags, cancellationToken);

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.ZeroAsync(offset + _start, length, flags, cancellationToken);

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => next.CacheAsync(offset + _start, length, cancellationToken);

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Window.ExtentsAsync(next, _start, _size, offset, length, flags, extents, cancellationToken);

    /// <summary>Sets the part that is served. The caller has checked that it is inside the layer below, and aligned.</summary>
    protected void Show(long start, long size)
    {
        _start = start;
        _size = size;
    }

    bool INbdFilterHandle.KeepsNext => true;
}
