using System.Text;
using NbdKit.Buffers;

namespace NbdKit.Filters.Partition;

/// <summary>One context of the partition filter: finds the partition, then moves every request into it.</summary>
internal sealed class PartitionHandle : INbdFilterHandle, ILendingFilter
{
    private const int LargestDescription = 4096;

    private readonly int _number;
    private readonly long? _sectorSize;
    private PartitionRange _range;

    public PartitionHandle(int number, long? sectorSize)
    {
        _number = number;
        _sectorSize = sectorSize;
    }

    public async ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        long sectorSize = _sectorSize ?? (next.Info.BlockSize.Minimum == 4096 ? 4096 : 512);
        var sectors = new SectorReader(next, (int)sectorSize);
        PartitionRange range = await PartitionTable.FindAsync(sectors, _number, cancellationToken)
            .ConfigureAwait(false);
        if (range.Offset > next.Info.Size || range.Length > next.Info.Size - range.Offset)
        {
            throw PartitionTable.Damaged(
                $"{range.Scheme} partition {_number}, {range.Length} bytes at {range.Offset}, is not inside the "
                + $"{next.Info.Size} bytes of the disk");
        }
        Window.RequireAligned(next, $"partition {_number}", range.Offset);
        _range = range;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { Size = _range.Length, Description = Describe(next.Info.Description) });

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset + _range.Offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset + _range.Offset);

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => next.ReadAsync(buffer, offset + _range.Offset, cancellationToken);

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Window.ReadSparseAsync(next, _range.Offset, buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
        => next.WriteAsync(data, offset + _range.Offset, flags, cancellationToken);

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset + _range.Offset, length, flags, cancellationToken);

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.ZeroAsync(offset + _range.Offset, length, flags, cancellationToken);

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => next.CacheAsync(offset + _range.Offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Window.ExtentsAsync(next, _range.Offset, _range.Length, offset, length, flags, extents, cancellationToken);

    private string Describe(string? disk)
    {
        string own = $"partition {_number} of {_range.Scheme} disk";
        string full = disk is null ? own : $"{own}: {disk}";
        return Encoding.UTF8.GetByteCount(full) <= LargestDescription ? full : own;
    }

    bool INbdFilterHandle.KeepsNext => true;
}
