using System.Buffers.Binary;

namespace NbdKit.Plugins.Fat;

/// <summary>The partition table and the boot sectors.</summary>
internal static class FatBoot
{
    private const int Heads = 255;
    private const int SectorsPerTrack = 63;
    private const int InfoSector = 1;
    private const int BackupSector = 6;
    private const byte Fat32Lba = 0x0c;

    /// <summary>
    /// The first sector of the disk: a number (4 bytes at 440), and the first of four entries at 446: active (1), first sector by
    /// cylinder, head and sector (3), type (1), last sector (3), first sector (4), number of sectors (4).
    /// </summary>
    public static byte[] PartitionTable(in FatLayout layout, uint serial)
    {
        byte[] sector = new byte[FatLayout.SectorSize];
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(440), serial);
        Span<byte> entry = sector.AsSpan(446, 16);
        PutCylinder(entry[1..], FatLayout.PartitionStart);
        entry[4] = Fat32Lba;
        PutCylinder(entry[5..], FatLayout.PartitionStart + layout.PartitionSectors - 1);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], FatLayout.PartitionStart);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], (uint)layout.PartitionSectors);
        Sign(sector);
        return sector;
    }

    /// <summary>The reserved sectors of the partition: boot sector, free space, a third that is empty, and copies of them.</summary>
    public static byte[] Sectors(in FatLayout layout, ReadOnlySpan<byte> label, uint serial, uint free, uint next)
    {
        byte[] sectors = new byte[FatLayout.Reserved * FatLayout.SectorSize];
        Span<byte> boot = sectors.AsSpan(0, FatLayout.SectorSize);
        ReadOnlySpan<byte> jump = [0xeb, 0x58, 0x90];
        jump.CopyTo(boot);
        "MSWIN4.1"u8.CopyTo(boot[3..]);
        BinaryPrimitives.WriteUInt16LittleEndian(boot[11..], FatLayout.SectorSize);
        boot[13] = (byte)layout.ClusterSectors;
        BinaryPrimitives.WriteUInt16LittleEndian(boot[14..], FatLayout.Reserved);
        boot[16] = 2;
        boot[21] = 0xf8;
        BinaryPrimitives.WriteUInt16LittleEndian(boot[24..], SectorsPerTrack);
        BinaryPrimitives.WriteUInt16LittleEndian(boot[26..], Heads);
        BinaryPrimitives.WriteUInt32LittleEndian(boot[28..], FatLayout.PartitionStart);
        BinaryPrimitives.WriteUInt32LittleEndian(boot[32..], (uint)layout.PartitionSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(boot[36..], (uint)layout.TableSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(boot[44..], 2);
        BinaryPrimitives.WriteUInt16LittleEndian(boot[48..], InfoSector);
        BinaryPrimitives.WriteUInt16LittleEndian(boot[50..], BackupSector);
        boot[64] = 0x80;
        boot[66] = 0x29;
        BinaryPrimitives.WriteUInt32LittleEndian(boot[67..], serial);
        label.CopyTo(boot[71..]);
        "FAT32   "u8.CopyTo(boot[82..]);
        // Asks the BIOS for the next disk, and stays there if it has none.
        ReadOnlySpan<byte> program = [0xcd, 0x18, 0xeb, 0xfe];
        program.CopyTo(boot[90..]);
        Sign(boot);

        Span<byte> info = sectors.AsSpan(InfoSector * FatLayout.SectorSize, FatLayout.SectorSize);
        "RRaA"u8.CopyTo(info);
        "rrAa"u8.CopyTo(info[484..]);
        BinaryPrimitives.WriteUInt32LittleEndian(info[488..], free);
        BinaryPrimitives.WriteUInt32LittleEndian(info[492..], free == 0 ? uint.MaxValue : next);
        Sign(info);
        Sign(sectors.AsSpan(2 * FatLayout.SectorSize, FatLayout.SectorSize));
        sectors.AsSpan(0, 3 * FatLayout.SectorSize).CopyTo(sectors.AsSpan(BackupSector * FatLayout.SectorSize));
        return sectors;
    }

    private static void PutCylinder(Span<byte> place, long sector)
    {
        long cylinder = sector / (Heads * SectorsPerTrack);
        // What lies beyond the 1023rd cylinder has the largest numbers there are.
        (int head, int number) = cylinder > 1023
            ? (Heads - 1, SectorsPerTrack)
            : ((int)(sector / SectorsPerTrack % Heads), (int)(sector % SectorsPerTrack) + 1);
        cylinder = Math.Min(cylinder, 1023);
        place[0] = (byte)head;
        place[1] = (byte)(number | ((int)(cylinder >> 8) << 6));
        place[2] = (byte)cylinder;
    }

    private static void Sign(Span<byte> sector) => (sector[510], sector[511]) = (0x55, 0xaa);
}
