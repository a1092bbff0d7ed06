using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using NbdKit.Filters.Partition;

namespace NbdKit.Plugins.Processes;

/// <summary>A disk with a GUID partition table and one Linux partition in it.</summary>
/// <remarks>
/// <code>
/// sector 0          the protective MBR
/// sector 1          the header
/// sectors 2 to 33   128 entries of 128 bytes
/// ...               the partition
/// last 33 sectors   the entries again, and the header again
/// </code>
/// The layouts of header and entries are those in <see cref="GptHeader"/> and <see cref="Gpt"/>.
/// </remarks>
/// <param name="start">The first sector of the partition.</param>
/// <param name="sectors">The sectors of the partition.</param>
internal sealed class SinglePartition(long start, long sectors)
{
    private const int SectorSize = 512;
    private const int EntrySize = 128;
    private const int EntrySectors = 32;
    private const int HeaderSize = 92;

    private static readonly Guid LinuxData = new("0FC63DAF-8483-4772-8E79-3D69D8477DE4");

    /// <summary>The sectors of the whole disk.</summary>
    public long DiskSectors => start + sectors + EntrySectors + 1;

    /// <summary>Writes the table into the image, before and after the partition.</summary>
    public void WriteTable(SafeFileHandle image)
    {
        byte[] entries = new byte[EntrySectors * SectorSize];
        LinuxData.TryWriteBytes(entries);
        Guid.NewGuid().TryWriteBytes(entries.AsSpan(16));
        BinaryPrimitives.WriteInt64LittleEndian(entries.AsSpan(32), start);
        BinaryPrimitives.WriteInt64LittleEndian(entries.AsSpan(40), start + sectors - 1);
        byte[] header = Header(Crc32.End(Crc32.Append(Crc32.Start, entries)), Guid.NewGuid());
        long last = DiskSectors - 1;
        RandomAccess.Write(image, ProtectiveMbr(), 0);
        RandomAccess.Write(image, Placed(header, 1, last, 2), SectorSize);
        RandomAccess.Write(image, entries, 2 * SectorSize);
        RandomAccess.Write(image, entries, (last - EntrySectors) * SectorSize);
        RandomAccess.Write(image, Placed(header, last, 1, last - EntrySectors), last * SectorSize);
    }

    private byte[] Header(uint entriesCrc, Guid disk)
    {
        byte[] header = new byte[SectorSize];
        "EFI PART"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), 0x10000);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(12), HeaderSize);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(40), 2 + EntrySectors);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(48), DiskSectors - EntrySectors - 2);
        disk.TryWriteBytes(header.AsSpan(56));
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(80), EntrySectors * SectorSize / EntrySize);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(84), EntrySize);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(88), entriesCrc);
        return header;
    }

    /// <summary>The header for one of its two places.</summary>
    private static byte[] Placed(byte[] header, long place, long other, long entries)
    {
        byte[] placed = [.. header];
        BinaryPrimitives.WriteInt64LittleEndian(placed.AsSpan(24), place);
        BinaryPrimitives.WriteInt64LittleEndian(placed.AsSpan(32), other);
        BinaryPrimitives.WriteInt64LittleEndian(placed.AsSpan(72), entries);
        BinaryPrimitives.WriteUInt32LittleEndian(
            placed.AsSpan(16), Crc32.End(Crc32.Append(Crc32.Start, placed.AsSpan(0, HeaderSize))));
        return placed;
    }

    // One entry over the whole disk at byte 446: first address (1 to 3), type EEh (4), last address (5 to 7), first sector (8), sectors (12).
    private byte[] ProtectiveMbr()
    {
        byte[] sector = new byte[SectorSize];
        new byte[] { 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF }.CopyTo(sector, 446);
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(454), 1);
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(458), (uint)Math.Min(DiskSectors - 1, uint.MaxValue));
        sector[510] = 0x55;
        sector[511] = 0xAA;
        return sector;
    }
}
