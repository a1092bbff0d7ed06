using System.Buffers;

namespace NbdKit.Filters.Partition;

/// <summary>The master boot record, and the chain of extended boot records that holds the logical partitions.</summary>
/// <remarks>
/// Both have the same layout: four entries of 16 bytes from byte 446, then 55h AAh. In an extended boot record the
/// first entry is the logical partition, counted from this record; the second is the next record, counted from the
/// start of the extended partition.
/// </remarks>
internal static class Mbr
{
    private const string Scheme = "MBR";
    private const int Primaries = 4;
    private const int SignatureOffset = 510;
    private const byte ProtectiveType = 0xEE;

    // Far beyond what any system makes; a hostile chain could have one record in each of four thousand million sectors.
    private const int LongestChain = 1024;

    public static bool HasSignature(ReadOnlySpan<byte> sector)
        => sector[SignatureOffset] == 0x55 && sector[SignatureOffset + 1] == 0xAA;

    /// <summary>Whether the record only says that the disk has a GPT.</summary>
    public static bool IsProtective(ReadOnlySpan<byte> sector)
    {
        for (int i = 0; i < Primaries; i++)
        {
            if (MbrEntry.Read(sector, i).Type == ProtectiveType)
            {
                return true;
            }
        }
        return false;
    }

    public static async ValueTask<PartitionRange> FindAsync(
        SectorReader sectors, ReadOnlyMemory<byte> boot, int number, CancellationToken cancellationToken)
    {
        if (number <= Primaries)
        {
            MbrEntry entry = MbrEntry.Read(boot.Span, number - 1);
            if (!entry.IsUsed)
            {
                throw PartitionTable.NotThere(Scheme, number);
            }
            if (entry.IsExtended)
            {
                throw PartitionTable.NotThere(
                    Scheme, number, "it is an extended partition; its logical partitions have the numbers from 5");
            }
            return Range(sectors, entry.Start, entry.Count);
        }
        for (int i = 0; i < Primaries; i++)
        {
            MbrEntry entry = MbrEntry.Read(boot.Span, i);
            if (entry.IsUsed && entry.IsExtended)
            {
                return await FindLogicalAsync(sectors, entry, number, cancellationToken).ConfigureAwait(false);
            }
        }
        throw PartitionTable.NotThere(Scheme, number, "there is no extended partition");
    }

    private static async ValueTask<PartitionRange> FindLogicalAsync(
        SectorReader sectors, MbrEntry extended, int number, CancellationToken cancellationToken)
    {
        long end = extended.Start + extended.Count;
        long record = extended.Start;
        int found = Primaries;
        byte[] rented = ArrayPool<byte>.Shared.Rent(sectors.Size);
        try
        {
            Memory<byte> sector = rented.AsMemory(0, sectors.Size);
            for (int length = 0; length < LongestChain; length++)
            {
                if (record < 1 || record >= end || record >= sectors.Count)
                {
                    throw PartitionTable.Damaged(
                        $"an extended boot record, in sector {record}, is outside the extended partition or the disk");
                }
                await sectors.ReadAsync(record, sector, cancellationToken).ConfigureAwait(false);
                if (!HasSignature(sector.Span))
                {
                    throw PartitionTable.Damaged(
                        $"there is no extended boot record in sector {record}, where one should be");
                }
                MbrEntry logical = MbrEntry.Read(sector.Span, 0);
                MbrEntry next = MbrEntry.Read(sector.Span, 1);
                // A record without a partition, as is left when the first one is deleted, has no number.
                if (logical.IsUsed && !logical.IsExtended && ++found == number)
                {
                    long start = record + logical.Start;
                    if (logical.Start == 0 || start > end || logical.Count > end - start)
                    {
                        throw PartitionTable.Damaged(
                            $"logical partition {number} is not inside the extended partition");
                    }
                    return Range(sectors, start, logical.Count);
                }
                if (!next.IsUsed)
                {
                    throw PartitionTable.NotThere(Scheme, number);
                }
                // Records in descending order are legal but rare; a chain that only goes forward cannot loop.
                if (!next.IsExtended || extended.Start + next.Start <= record)
                {
                    throw PartitionTable.Damaged(
                        $"the extended boot record in sector {record} links to one that does not follow it");
                }
                record = extended.Start + next.Start;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
        throw PartitionTable.Damaged($"the chain of extended boot records is longer than {LongestChain}");
    }

    private static PartitionRange Range(SectorReader sectors, long start, long count)
        => new(Scheme, start * sectors.Size, count * sectors.Size);
}
