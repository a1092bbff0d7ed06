using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>An option of the client, 16 bytes: IHAVEOPT 64, option 32, length 32. Its payload follows.</summary>
internal readonly record struct OptionHeader(OptionType Type, uint Length)
{
    public const int Size = 16;

    /// <summary>Reads a header; false if the magic is wrong. Needs <see cref="Size"/> bytes.</summary>
    public static bool TryRead(ReadOnlySpan<byte> bytes, out OptionHeader header)
    {
        header = new OptionHeader(
            (OptionType)BinaryPrimitives.ReadUInt32BigEndian(bytes[8..]),
            BinaryPrimitives.ReadUInt32BigEndian(bytes[12..]));
        return BinaryPrimitives.ReadUInt64BigEndian(bytes) == Magic.Option;
    }
}
