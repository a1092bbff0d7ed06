namespace NbdKit.Layers;

/// <summary>
/// A filter's handle for which all requests are alike: each comes as a <see cref="LayerCall"/>, which passes with
/// <c>call.Invoke(next, cancellationToken)</c>. What would be emulated above comes through as what it is, and is emulated below.
/// </summary>
internal abstract class RequestHandle : INbdFilterHandle
{
    bool INbdFilterHandle.KeepsNext => true;

    public virtual ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        return new(info with
        {
            CanZero = info.CanZero.ComesThrough(),
            CanCache = info.CanCache.ComesThrough(),
            // Whoever emulates it needs flushes, of which some layers only have the emulation.
            CanFua = info.CanFlush ? info.CanFua.ComesThrough() : info.CanFua,
            CanReadSparse = info.CanReadSparse.ComesThrough(),
        });
    }

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Read(buffer, offset), next, cancellationToken);

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => RunAsync(LayerCall.ReadSparse(buffer, offset, extents), next, cancellationToken);

    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Write(data, offset, flags), next, cancellationToken);

    public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Flush(), next, cancellationToken);

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Trim(offset, length, flags), next, cancellationToken);

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Zero(offset, length, flags), next, cancellationToken);

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => RunAsync(LayerCall.Cache(offset, length), next, cancellationToken);

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => RunAsync(LayerCall.Extents(offset, length, flags, extents), next, cancellationToken);

    public virtual ValueTask CloseAsync() => default;

    protected abstract ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken);
}
