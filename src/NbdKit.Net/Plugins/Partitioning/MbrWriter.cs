using System.Buffers.Binary;

namespace NbdKit.Plugins.Partitioning;

/// <summary>Makes boot records.</summary>
/// <remarks>
/// An entry, of which four begin at byte 446 of a record: active 80h (0), first sector as cylinder, head and sector (1), type (4),
/// last sector likewise (5), first sector (8, 32 bits), number of sectors (12, 32 bits). A record ends with 55h AAh.
/// </remarks>
internal static class MbrWriter
{
    private const int RecordSize = 512;
    private const byte Extended = 0x0F;
    private const byte Protective = 0xEE;
    private const byte Active = 0x80;

    public static IEnumerable<TablePiece> Write(PartitioningPlan plan, IReadOnlyList<PartitioningMember> members)
    {
        byte[] boot = Record();
        for (int i = 0; i < plan.FirstLogical; i++)
        {
            Entry(boot, i, i == 0, members[i].MbrId, plan.Sector(plan.Starts[i]), plan.Sectors(plan.Sizes[i]));
        }
        if (plan.FirstLogical == plan.Sizes.Count)
        {
            return [new TablePiece(0, boot)];
        }
        // The container goes from the first extended record to the end of the disk.
        long container = plan.RecordOffset(plan.FirstLogical);
        Entry(boot, plan.FirstLogical, false, Extended, plan.Sector(container), plan.Sectors(plan.Size - container));
        var pieces = new List<TablePiece> { new(0, boot) };
        for (int i = plan.FirstLogical; i < plan.Sizes.Count; i++)
        {
            byte[] record = Record();
            long at = plan.RecordOffset(i);
            Entry(record, 0, false, members[i].MbrId, plan.Sector(plan.Starts[i] - at), plan.Sectors(plan.Sizes[i]));
            if (i + 1 < plan.Sizes.Count)
            {
                long next = plan.RecordOffset(i + 1);
                long end = plan.Starts[i + 1] + plan.Sizes[i + 1];
                Entry(record, 1, false, Extended, plan.Sector(next - container), plan.Sectors(end - next));
            }
            pieces.Add(new TablePiece(at, record));
        }
        return pieces;
    }

    /// <summary>The record of a disk with a GPT: one partition over all of it, or as much as can be said.</summary>
    public static void WriteProtective(Span<byte> sector, long diskSectors)
    {
        Entry(sector, 0, false, Protective, 1, Math.Min(diskSectors - 1, uint.MaxValue));
        Sign(sector);
    }

    private static byte[] Record()
    {
        byte[] record = new byte[RecordSize];
        Sign(record);
        return record;
    }

    private static void Sign(Span<byte> record) => (record[510], record[511]) = (0x55, 0xAA);

    private static void Entry(Span<byte> record, int number, bool isActive, byte type, long first, long count)
    {
        Span<byte> entry = record.Slice(446 + (16 * number), 16);
        entry[0] = isActive ? Active : (byte)0;
        // Head 254, sector 63, cylinder 1023: beyond what can be said in this way.
        ReadOnlySpan<byte> beyond = [0xFE, 0xFF, 0xFF];
        beyond.CopyTo(entry[1..]);
        entry[4] = type;
        beyond.CopyTo(entry[5..]);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], (uint)first);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], (uint)count);
    }
}
