using NbdKit.Layers;

namespace NbdKit.Filters.Ext2;

/// <summary>A small file whose content is in its inode. It cannot be written: that would change the inode.</summary>
internal sealed class InlineFile : FileHandle
{
    private readonly byte[] _content;

    public InlineFile(NbdContext context, SharedImage<Volume> image, string path, Inode inode)
        : base(context, image, path)
        => _content = InlineData.ReadContent(inode);

    protected override long Size => _content.Length;

    protected override bool CanWrite => false;

    public override ValueTask ReadAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        _content.AsMemory((int)offset, buffer.Length).CopyTo(buffer);
        return default;
    }

    public override ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => throw ReadOnly();

    public override ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw ReadOnly();

    public override ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw ReadOnly();

    public override ValueTask CacheAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken) => default;

    public override ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    private static NbdException ReadOnly() => new(NbdError.PermissionDenied, "the content of the file is in its inode");
}
