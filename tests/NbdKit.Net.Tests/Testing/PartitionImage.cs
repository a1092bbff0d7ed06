using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>Writes partition tables, right and wrong ones, into images of disks.</summary>
internal static class PartitionImage
{
    /// <summary>Writes a boot record of up to four entries into a sector.</summary>
    public static void WriteRecord(Span<byte> sector, params (byte Type, uint Start, uint Count)[] entries)
    {
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = sector[(446 + (16 * i))..];
            entry[4] = entries[i].Type;
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], entries[i].Start);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], entries[i].Count);
        }
        sector[510] = 0x55;
        sector[511] = 0xAA;
    }

    /// <summary>Writes a protective MBR, a GPT and its backup.</summary>
    public static void WriteGpt(
        Span<byte> disk, int sectorSize, (ulong First, ulong Last)[] partitions, int count = 128, int entrySize = 128)
    {
        WriteRecord(disk[..sectorSize], (0xEE, 1, uint.MaxValue));
        int arraySectors = ((count * entrySize) + sectorSize - 1) / sectorSize;
        byte[] array = new byte[count * entrySize];
        for (int i = 0; i < partitions.Length; i++)
        {
            if (partitions[i] != default)
            {
                Span<byte> entry = array.AsSpan(i * entrySize);
                entry[..16].Fill(0xC5);
                BinaryPrimitives.WriteUInt64LittleEndian(entry[32..], partitions[i].First);
                BinaryPrimitives.WriteUInt64LittleEndian(entry[40..], partitions[i].Last);
            }
        }
        long last = (disk.Length / sectorSize) - 1;
        long backupArray = last - arraySectors;
        array.CopyTo(disk[(2 * sectorSize)..]);
        array.CopyTo(disk[(int)(backupArray * sectorSize)..]);
        WriteHeader(disk, sectorSize, 1, last, 2, count, entrySize, Crc32(array));
        WriteHeader(disk, sectorSize, last, 1, backupArray, count, entrySize, Crc32(array));
    }

    /// <summary>Writes a GPT header with a right checksum, whatever it says.</summary>
    public static void WriteHeader(
        Span<byte> disk, int sectorSize, long sector, long alternate, long array, long count, long entrySize, uint arrayCrc,
        uint headerSize = 92)
    {
        Span<byte> header = disk.Slice((int)(sector * sectorSize), sectorSize);
        header.Clear();
        "EFI PART"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], 0x0001_0000);
        BinaryPrimitives.WriteUInt32LittleEndian(header[12..], headerSize);
        BinaryPrimitives.WriteInt64LittleEndian(header[24..], sector);
        BinaryPrimitives.WriteInt64LittleEndian(header[32..], alternate);
        BinaryPrimitives.WriteInt64LittleEndian(header[72..], array);
        BinaryPrimitives.WriteUInt32LittleEndian(header[80..], (uint)count);
        BinaryPrimitives.WriteUInt32LittleEndian(header[84..], (uint)entrySize);
        BinaryPrimitives.WriteUInt32LittleEndian(header[88..], arrayCrc);
        BinaryPrimitives.WriteUInt32LittleEndian(header[16..], Crc32(header[..(int)Math.Min(headerSize, sectorSize)]));
    }

    /// <summary>CRC-32, bit by bit.</summary>
    public static uint Crc32(ReadOnlySpan<byte> bytes)
    {
        uint crc = uint.MaxValue;
        foreach (byte b in bytes)
        {
            crc ^= b;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xEDB8_8320 : crc >> 1;
            }
        }
        return ~crc;
    }
}
