using NbdKit.Buffers;

namespace NbdKit.Filters.Sequential;

/// <summary>One context of the gzip filter. It needs nothing from the layer below any more.</summary>
internal sealed class GzipHandle(OncePerExport<GzipImage>.Use use) : INbdFilterHandle, ILendingFilter
{
    private readonly GzipImage _image = use.Made;

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = _image.Disk.Length,
        Description = _image.Description,
        CanCache = Support.Native,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _image.Disk.ReadAsync(buffer, offset, cancellationToken);

    // All is as near as it can be.
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken) => default;

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => _image.Disk.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    public ValueTask CloseAsync()
    {
        use.Dispose();
        return default;
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !forWrite && _image.Disk.TryLend(offset, length, loan);
}
