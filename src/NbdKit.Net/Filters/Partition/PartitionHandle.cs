using System.Text;

namespace NbdKit.Filters.Partition;

/// <summary>One context of the partition filter: finds the partition, then moves every request into it.</summary>
internal sealed class PartitionHandle : WindowHandle
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

    public override async ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
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
        Show(range.Offset, range.Length);
    }

    public override ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { Size = _range.Length, Description = Describe(next.Info.Description) });

    private string Describe(string? disk)
    {
        string own = $"partition {_number} of {_range.Scheme} disk";
        string full = disk is null ? own : $"{own}: {disk}";
        return Encoding.UTF8.GetByteCount(full) <= LargestDescription ? full : own;
    }
}
