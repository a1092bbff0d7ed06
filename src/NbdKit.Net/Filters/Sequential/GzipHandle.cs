using NbdKit.Buffers;

namespace NbdKit.Filters.Sequential;

/// <summary>One context of the gzip filter. It needs nothing from the layer below any more.</summary>
internal sealed class GzipHandle(GzipImage image) : INbdFilterHandle, ILendingFilter
{
    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = image.Disk.Length,
        Description = image.Description,
        CanCache = Support.Native,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => image.Disk.ReadAsync(buffer, offset, cancellationToken);

    // All is as near as it can be.
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken) => default;

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => image.Disk.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !forWrite && image.Disk.TryLend(offset, length, loan);
}
