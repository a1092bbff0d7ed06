using NbdKit.Buffers;

namespace NbdKit.Filters.Sequential;

/// <summary>One context of the forward-only filter.</summary>
internal sealed class ForwardHandle(OncePerExport<ForwardSource>.Use use) : INbdFilterHandle, ILendingFilter
{
    private readonly ForwardSource _source = use.Made;
    private readonly ScratchDisk _disk = use.Made.Disk;

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = _source.Info.Size,
        Description = _source.Info.Description,
        CanCache = Support.Native,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => offset + buffer.Length <= _disk.Length
            ? _disk.ReadAsync(buffer, offset, cancellationToken)
            : ReachAndReadAsync(buffer, offset, cancellationToken);

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        _ = _source.Begin(offset + length);
        return default;
    }

    // What was not read yet is data, as far as anybody knows.
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long known = _disk.Length - offset;
        if (known > 0)
        {
            return _disk.ExtentsAsync(offset, Math.Min(length, known), flags, extents, cancellationToken);
        }
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    public ValueTask CloseAsync()
    {
        use.Dispose();
        return default;
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !forWrite && offset + length <= _disk.Length && _disk.TryLend(offset, length, loan);

    private async ValueTask ReachAndReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await _source.ReachAsync(offset + buffer.Length, cancellationToken).ConfigureAwait(false);
        await _disk.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
    }
}
