using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>An option of the client, 16 bytes: IHAVEOPT 64, option 32, length 32. Its payload follows.</summary>
/// <remarks>A class, for the first client's sake: a task of a struct of our own is compiled anew, that of any class once.</remarks>
internal sealed record OptionHeader(OptionType Type, uint Length)
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
