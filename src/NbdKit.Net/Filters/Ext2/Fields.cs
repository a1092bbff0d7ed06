using System.Buffers.Binary;

namespace NbdKit.Filters.Ext2;

/// <summary>Numbers in the structures of the file system, all little endian.</summary>
internal static class Fields
{
    public static ushort U16(this ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[at..]);

    public static uint U32(this ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    /// <summary>A number whose lower half is in one place and whose upper half is in another.</summary>
    public static ulong Split(this ReadOnlySpan<byte> bytes, int low, int high) => bytes.U32(low) | ((ulong)bytes.U32(high) << 32);
}
