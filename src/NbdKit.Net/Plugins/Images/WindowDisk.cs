using NbdKit.Filters;
using NbdKit.Layers;

namespace NbdKit.Plugins.Images;

/// <summary>Serves a range of an opened chain as it is.</summary>
internal sealed class WindowDisk : IChainHandle
{
    private readonly InnerContext _inner;
    private readonly NextContext _next;
    private readonly long _start;
    private readonly NbdExportInfo _info;

    public WindowDisk(InnerContext inner, long start, NbdExportInfo info)
    {
        _inner = inner;
        _next = inner.Next;
        // The layer above sees to it that no call is in flight at the end.
        _next.CountsCalls = false;
        _start = start;
        _info = info;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(_info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _next.ReadAsync(buffer, _start + offset, cancellationToken);

    public ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Window.ReadSparseAsync(_next, _start, buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => _next.WriteAsync(data, _start + offset, flags, cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => _next.FlushAsync(cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _next.TrimAsync(_start + offset, length, flags, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _next.ZeroAsync(_start + offset, length, flags, cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => _next.CacheAsync(_start + offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => Window.ExtentsAsync(_next, _start, _info.Size, offset, length, flags, extents, cancellationToken);

    public ValueTask FinalizeAsync(CancellationToken quick) => _inner.FinalizeAsync(quick);

    public ValueTask CloseAsync() => _inner.CloseAsync();
}
