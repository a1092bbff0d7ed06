using System.Buffers.Binary;
using System.Numerics;

namespace NbdKit.Filters.Ext2;

/// <summary>The two checksums of the file system. Neither is inverted at its end, so parts can be chained.</summary>
internal static class Checksum
{
    /// <summary>The state before the first byte, of both.</summary>
    public const uint Start = uint.MaxValue;

    /// <summary>CRC-32C, which metadata_csum uses.</summary>
    public static uint Crc32C(uint state, ReadOnlySpan<byte> bytes)
    {
        for (; bytes.Length >= sizeof(ulong); bytes = bytes[sizeof(ulong)..])
        {
            state = BitOperations.Crc32C(state, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        }
        foreach (byte b in bytes)
        {
            state = BitOperations.Crc32C(state, b);
        }
        return state;
    }

    /// <summary>The same over a number, in the byte order of the disk.</summary>
    public static uint Crc32C(uint state, uint value) => BitOperations.Crc32C(state, value);

    /// <summary>The same over zeroes, which stand for the place of a checksum.</summary>
    public static uint Crc32COfZeroes(uint state, int count)
    {
        for (; count > 0; count--)
        {
            state = BitOperations.Crc32C(state, (byte)0);
        }
        return state;
    }

    /// <summary>CRC-16 (reflected polynomial A001h), which uninit_bg uses for group descriptors.</summary>
    public static ushort Crc16(uint state, ReadOnlySpan<byte> bytes)
    {
        ushort value = (ushort)state;
        foreach (byte b in bytes)
        {
            value ^= b;
            for (int bit = 0; bit < 8; bit++)
            {
                value = (ushort)((value >> 1) ^ ((value & 1) * 0xA001));
            }
        }
        return value;
    }
}
