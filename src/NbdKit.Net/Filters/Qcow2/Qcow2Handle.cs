using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>One context of the filter.</summary>
internal sealed class Qcow2Handle : INbdFilterHandle
{
    private readonly NbdContext _context;
    private readonly SharedImage<Image> _shared;
    private readonly Image _image;

    public Qcow2Handle(NbdContext context, SharedImage<Image> shared)
    {
        _context = context;
        _shared = shared;
        _image = shared.Content;
    }

    bool INbdFilterHandle.KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(new NbdExportInfo
        {
            Size = _image.Size,
            BlockSize = new BlockSize(1, Math.Max(_image.ClusterSize, 4096)),
            Description = next.Info.Description,
            IsRotational = next.Info.IsRotational,
            // Reads bring tables and decompressed clusters into memory.
            CanCache = Support.Emulate,
            CanMultiConn = true,
            CanExtents = true,
            CanReadSparse = Support.Emulate,
            MetaContexts = [ExtentList.BaseAllocation, ExtentList.AllocationDepth],
            IsBlocking = next.Info.IsBlocking || _image.IsBlocking,
        });

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _image.ReadAsync(buffer, offset, cancellationToken);

    public async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => await _image.ExtentsAsync(offset, length, flags, Image.MostSteps, extents, cancellationToken).ConfigureAwait(false);

    public ValueTask CloseAsync()
    {
        _context.SetNext(null);
        return _shared.ReleaseAsync();
    }
}
