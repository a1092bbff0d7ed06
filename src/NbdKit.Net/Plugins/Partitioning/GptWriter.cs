using System.Buffers.Binary;
using System.Security.Cryptography;
using NbdKit.Filters.Partition;

namespace NbdKit.Plugins.Partitioning;

/// <summary>
/// Makes a GUID partition table and its backup. The layouts of header and entries are those in <see cref="GptHeader"/> and
/// <see cref="Gpt"/>.
/// </summary>
internal static class GptWriter
{
    private const uint Revision = 0x0001_0000;
    private const int HeaderSize = 92;

    // Attribute bit 2: a BIOS may start from it, what "active" is in an MBR.
    private const ulong LegacyBootable = 4;

    public static IEnumerable<TablePiece> Write(
        PartitioningPlan plan, IReadOnlyList<PartitioningMember> members, Guid disk)
    {
        int size = plan.SectorSize;
        long last = plan.Sector(plan.Size) - 1;
        byte[] entries = Entries(plan, members, disk);
        byte[] primary = new byte[(2 + plan.ArraySectors) * size];
        MbrWriter.WriteProtective(primary, last + 1);
        Header(primary.AsSpan(size, HeaderSize), plan, disk, entries, 1, last, 2);
        entries.CopyTo(primary, 2 * size);

        byte[] backup = new byte[(plan.ArraySectors + 1) * size];
        entries.CopyTo(backup, 0);
        Header(backup.AsSpan(plan.ArraySectors * size, HeaderSize), plan, disk, entries, last, 1, last - plan.ArraySectors);
        return [new TablePiece(0, primary), new TablePiece(plan.Size - backup.Length, backup)];
    }

    private static byte[] Entries(PartitioningPlan plan, IReadOnlyList<PartitioningMember> members, Guid disk)
    {
        byte[] entries = new byte[plan.EntryCount * PartitioningPlan.EntrySize];
        for (int i = 0; i < members.Count; i++)
        {
            Span<byte> entry = entries.AsSpan(i * PartitioningPlan.EntrySize, PartitioningPlan.EntrySize);
            long first = plan.Sector(plan.Starts[i]);
            members[i].TypeGuid.TryWriteBytes(entry);
            PartitionGuid(disk, i).CopyTo(entry[16..]);
            BinaryPrimitives.WriteInt64LittleEndian(entry[32..], first);
            BinaryPrimitives.WriteInt64LittleEndian(entry[40..], first + plan.Sectors(plan.Sizes[i]) - 1);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[48..], i == 0 ? LegacyBootable : 0);
        }
        return entries;
    }

    private static void Header(
        Span<byte> header, PartitioningPlan plan, Guid disk, byte[] entries, long sector, long alternate, long array)
    {
        "EFI PART"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], Revision);
        BinaryPrimitives.WriteInt32LittleEndian(header[12..], HeaderSize);
        BinaryPrimitives.WriteInt64LittleEndian(header[24..], sector);
        BinaryPrimitives.WriteInt64LittleEndian(header[32..], alternate);
        BinaryPrimitives.WriteInt64LittleEndian(header[40..], 2 + plan.ArraySectors);
        BinaryPrimitives.WriteInt64LittleEndian(header[48..], plan.Sector(plan.Size) - plan.ArraySectors - 2);
        disk.TryWriteBytes(header[56..]);
        BinaryPrimitives.WriteInt64LittleEndian(header[72..], array);
        BinaryPrimitives.WriteInt32LittleEndian(header[80..], plan.EntryCount);
        BinaryPrimitives.WriteInt32LittleEndian(header[84..], PartitioningPlan.EntrySize);
        BinaryPrimitives.WriteUInt32LittleEndian(header[88..], Crc32.End(Crc32.Append(Crc32.Start, entries)));
        // Made with zeroes in its own place.
        BinaryPrimitives.WriteUInt32LittleEndian(header[16..], Crc32.End(Crc32.Append(Crc32.Start, header)));
    }

    /// <summary>A GUID of version 8 (RFC 9562, 5.8): a hash of the disk's GUID and the partition's place.</summary>
    private static byte[] PartitionGuid(Guid disk, int number)
    {
        Span<byte> name = stackalloc byte[20];
        disk.TryWriteBytes(name);
        BinaryPrimitives.WriteInt32LittleEndian(name[16..], number);
        byte[] guid = SHA256.HashData(name)[..16];
        // The first three fields are little endian: the version is in the high half of byte 7.
        guid[7] = (byte)((guid[7] & 0x0F) | 0x80);
        guid[8] = (byte)((guid[8] & 0x3F) | 0x80);
        return guid;
    }
}
