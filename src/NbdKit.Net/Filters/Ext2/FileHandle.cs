using System.Text;
using NbdKit.Layers;
using NbdKit.Protocol;

namespace NbdKit.Filters.Ext2;

/// <summary>One context of the filter, on a file of a shared image.</summary>
internal abstract class FileHandle : INbdFilterHandle
{
    private readonly NbdContext _context;
    private readonly SharedImage<Volume> _image;
    private readonly string _path;

    protected FileHandle(NbdContext context, SharedImage<Volume> image, string path)
    {
        _context = context;
        _image = image;
        _path = path;
    }

    /// <summary>The size of the file in bytes.</summary>
    protected abstract long Size { get; }

    /// <summary>Whether content can be changed without changing anything else in the file system.</summary>
    protected abstract bool CanWrite { get; }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        return new(info with
        {
            Size = Size,
            Description = Describe(info.Description),
            CanonicalName = null,
            CanWrite = info.CanWrite && CanWrite,
            // Parts of a range may be holes, which only this layer knows.
            CanZero = info.CanZero == Support.None ? Support.None : Support.Native,
            CanExtents = true,
            CanReadSparse = Support.Emulate,
            MetaContexts = [ExtentList.BaseAllocation],
            // All connections to a file use one context of the layer below.
            CanMultiConn = true,
        });
    }

    public abstract ValueTask ReadAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken);

    public abstract ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken);

    public abstract ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken);

    public abstract ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken);

    public abstract ValueTask CacheAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken);

    public abstract ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken);

    public ValueTask CloseAsync()
    {
        _context.SetNext(null);
        return _image.ReleaseAsync();
    }

    private string? Describe(string? disk)
    {
        string own = $"file {_path} of a file system";
        string full = disk is null ? own : $"{own}: {disk}";
        return Encoding.UTF8.GetByteCount(full) <= WireString.MaximumBytes ? full
            : Encoding.UTF8.GetByteCount(own) <= WireString.MaximumBytes ? own : null;
    }
}
