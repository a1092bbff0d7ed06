namespace NbdKit.Layers;

/// <summary>Serves an opened chain as it is, under an info of the plugin's own making.</summary>
internal sealed class ChainHandle : IChainHandle
{
    private readonly InnerContext _inner;
    private readonly NextContext _next;
    private readonly NbdExportInfo _info;

    public ChainHandle(InnerContext inner, NbdExportInfo info)
    {
        _inner = inner;
        _next = inner.Next;
        // The layer above sees to it that no call is in flight at the end.
        _next.CountsCalls = false;
        _info = info;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(_info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _next.ReadAsync(buffer, offset, cancellationToken);

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => _next.WriteAsync(data, offset, flags, cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => _next.FlushAsync(cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _next.TrimAsync(offset, length, flags, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _next.ZeroAsync(offset, length, flags, cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => _next.CacheAsync(offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => _next.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    public ValueTask FinalizeAsync(CancellationToken quick) => _inner.FinalizeAsync(quick);

    public ValueTask CloseAsync() => _inner.CloseAsync();
}
