namespace NbdKit.Plugins;

/// <summary>One opened export of <see cref="NbdPlugin"/>: what it is asked is asked of the other server.</summary>
internal sealed class NbdPluginHandle(NbdClientPool pool, bool owned) : INbdPluginHandle
{
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
    {
        NbdExportInfo info = pool.Info;
        bool emulatesZero = info.CanWrite && info.CanZero == Support.None;
        return new(info with
        {
            CanZero = emulatesZero ? Support.Emulate : info.CanZero,
            // What is emulated is never fast, and says so quickly.
            CanFastZero = emulatesZero || info.CanFastZero,
            CanFua = info.CanFua == Support.None && info.CanWrite && info.CanFlush ? Support.Emulate : info.CanFua,
            // Every export has this context; what the other server does not tell is data.
            CanExtents = info.MetaContexts.Count > 0,
            MetaContexts = info.MetaContexts.Contains(ExtentList.BaseAllocation)
                ? info.MetaContexts
                : [ExtentList.BaseAllocation, .. info.MetaContexts],
            CanReadSparse = pool.HasStructuredReplies ? Support.Native : Support.None,
            // Names that this side knows by: the other server's canonical name is one of its own.
            CanonicalName = null,
        });
    }

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => pool.ReadAsync(buffer, offset, cancellationToken);

    public ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => pool.ReadSparseAsync(buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => pool.WriteAsync(data, offset, flags, cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => pool.FlushAsync(cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => pool.TrimAsync(offset, length, flags, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => pool.ZeroAsync(offset, length, flags, cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => pool.CacheAsync(offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        if (pool.Info.MetaContexts.Contains(extents.MetaContext))
        {
            return pool.ExtentsAsync(offset, length, flags, extents, cancellationToken);
        }
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    public ValueTask CloseAsync() => owned ? pool.DisposeAsync() : default;
}
