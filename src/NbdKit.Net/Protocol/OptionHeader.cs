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

    /// <summary>An option whole: its header, then its payload.</summary>
    public static byte[] Message(OptionType type, ReadOnlySpan<byte> payload)
    {
        byte[] message = new byte[Size + payload.Length];
        BinaryPrimitives.WriteUInt64BigEndian(message, Magic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(8), (uint)type);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)payload.Length);
        payload.CopyTo(message.AsSpan(Size));
        return message;
    }
}
