using System.Buffers;
using System.Buffers.Binary;

namespace NbdKit.Filters.Partition;

/// <summary>
/// The GUID partition table: a header and an array of entries at the start of the disk, both again at its
/// end.
/// </summary>
internal static class Gpt
{
    private const string Scheme = "GPT";

    /// <summary>
    /// Finds a header that is intact, and its entries too: the one in sector 1, the one that this says is its backup,
    /// or the one in the last sector.
    /// </summary>
    /// <returns>The header, or null and what is wrong.</returns>
    public static async ValueTask<(GptHeader? Header, string Problem)> FindHeaderAsync(
        SectorReader sectors, CancellationToken cancellationToken)
    {
        (GptHeader? primary, string? problem) = await TryAsync(sectors, 1, cancellationToken).ConfigureAwait(false);
        if (problem is null)
        {
            return (primary, "");
        }
        string problems = $"{problem} in sector 1";
        long last = sectors.Count - 1;
        // Only a header with a right checksum is believed. It differs from the last sector if the disk has grown.
        long[] backups = primary is { Alternate: > 1 } && primary.Alternate != last
            ? [primary.Alternate, last]
            : [last];
        foreach (long backup in backups)
        {
            (GptHeader? header, problem) = await TryAsync(sectors, backup, cancellationToken).ConfigureAwait(false);
            if (problem is null)
            {
                return (header, "");
            }
            problems += $", {problem} in sector {backup}";
        }
        return (null, problems);
    }

    public static async ValueTask<PartitionRange> FindAsync(
        SectorReader sectors, GptHeader header, int number, CancellationToken cancellationToken)
    {
        if (number > header.EntryCount)
        {
            throw PartitionTable.NotThere(Scheme, number, $"the table has room for {header.EntryCount}");
        }
        byte[] rented = ArrayPool<byte>.Shared.Rent(sectors.Size);
        try
        {
            // Sizes of sectors and entries are powers of two: an entry is within one sector, or begins one.
            long position = (number - 1L) * header.EntrySize;
            Memory<byte> sector = rented.AsMemory(0, sectors.Size);
            await sectors.ReadAsync(header.EntriesSector + (position / sectors.Size), sector, cancellationToken)
                .ConfigureAwait(false);
            return Range(sectors, sector.Span[(int)(position % sectors.Size)..], number);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    // Byte layout of an entry: type GUID (0, all zeroes if not in use), own GUID (16), first sector (32), last sector
    // (40), attributes (48), name (56).
    private static PartitionRange Range(SectorReader sectors, ReadOnlySpan<byte> entry, int number)
    {
        if (!entry[..16].ContainsAnyExcept((byte)0))
        {
            throw PartitionTable.NotThere(Scheme, number);
        }
        ulong first = BinaryPrimitives.ReadUInt64LittleEndian(entry[32..]);
        ulong last = BinaryPrimitives.ReadUInt64LittleEndian(entry[40..]);
        if (first > last || last >= (ulong)sectors.Count)
        {
            throw PartitionTable.Damaged(
                $"GPT partition {number}, sectors {first} to {last}, is not inside the {sectors.Count} sectors of the disk");
        }
        return new PartitionRange(Scheme, (long)first * sectors.Size, ((long)(last - first) + 1) * sectors.Size);
    }

    private static async ValueTask<(GptHeader? Header, string? Problem)> TryAsync(
        SectorReader sectors, long number, CancellationToken cancellationToken)
    {
        GptHeader? header;
        byte[] rented = ArrayPool<byte>.Shared.Rent(sectors.Size);
        try
        {
            Memory<byte> sector = rented.AsMemory(0, sectors.Size);
            await sectors.ReadAsync(number, sector, cancellationToken).ConfigureAwait(false);
            header = GptHeader.TryRead(sector.Span, number, sectors.Count, out string problem);
            if (header is null)
            {
                return (null, problem);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
        bool intact = await AreEntriesIntactAsync(sectors, header, cancellationToken).ConfigureAwait(false);
        return (header, intact ? null : "a header whose entries have the wrong checksum");
    }

    private static async ValueTask<bool> AreEntriesIntactAsync(
        SectorReader sectors, GptHeader header, CancellationToken cancellationToken)
    {
        int length = header.EntryCount * header.EntrySize;
        byte[] rented = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            Memory<byte> entries = rented.AsMemory(0, length);
            await sectors.ReadAsync(header.EntriesSector, entries, cancellationToken).ConfigureAwait(false);
            return Crc32.End(Crc32.Append(Crc32.Start, entries.Span)) == header.EntriesCrc;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }
}
