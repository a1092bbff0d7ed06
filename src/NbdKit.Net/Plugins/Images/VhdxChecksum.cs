using System.Buffers.Binary;
using NbdKit.Filters.Ext2;

namespace NbdKit.Plugins.Images;

/// <summary>The checksum of the structures of VHDX: CRC-32C over all of them, its own four bytes taken for zeroes.</summary>
internal static class VhdxChecksum
{
    private const int At = 4;

    public static bool IsRight(ReadOnlySpan<byte> structure)
    {
        uint state = Checksum.Crc32C(Checksum.Start, structure[..At]);
        state = Checksum.Crc32COfZeroes(state, sizeof(uint));
        return ~Checksum.Crc32C(state, structure[(At + sizeof(uint))..]) == BinaryPrimitives.ReadUInt32LittleEndian(structure[At..]);
    }
}
