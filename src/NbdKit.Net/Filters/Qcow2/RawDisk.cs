using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>The disk that a chain of the host serves.</summary>
internal sealed class RawDisk : IDisk
{
    private readonly InnerContext _inner;
    private readonly ImageDisk _disk;

    public RawDisk(InnerContext inner)
    {
        _inner = inner;
        _disk = new ImageDisk(inner.Next);
    }

    public long Size => _disk.Size;

    public bool IsBlocking => _inner.Info.IsBlocking;

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _disk.ReadAsync(buffer, offset, cancellationToken);

    public async ValueTask<int> ExtentsAsync(
        long offset, long length, RequestFlags flags, int steps, ExtentList extents, CancellationToken cancellationToken)
    {
        await (extents.MetaContext == ExtentList.AllocationDepth
            ? AllocationDepth.AskAsync(_inner.Next, offset, length, flags, extents, deeper: 0, cancellationToken)
            : _inner.Next.ExtentsAsync(offset, length, flags, extents, cancellationToken)).ConfigureAwait(false);
        return steps - 1;
    }

    public ValueTask DisposeAsync() => _inner.CloseAsync();
}
