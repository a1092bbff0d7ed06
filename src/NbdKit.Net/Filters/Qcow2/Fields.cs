using System.Buffers.Binary;

namespace NbdKit.Filters.Qcow2;

/// <summary>Numbers in the structures of an image, all big endian.</summary>
internal static class Fields
{
    public static ushort U16(this ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16BigEndian(bytes[at..]);

    public static uint U32(this ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32BigEndian(bytes[at..]);

    public static ulong U64(this ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64BigEndian(bytes[at..]);
}
