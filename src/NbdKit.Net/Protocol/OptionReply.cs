using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>The reply to an option, 20 bytes: magic 64, option 32, reply type 32, length 32. Its payload follows.</summary>
internal static class OptionReply
{
    public const int Size = 20;

    public static void Write(Span<byte> bytes, OptionType option, OptionReplyType type, uint length)
    {
        BinaryPrimitives.WriteUInt64BigEndian(bytes, Magic.OptionReply);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[12..], (uint)type);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[16..], length);
    }

    /// <summary>Reads a reply's header; false if the magic is wrong. Needs <see cref="Size"/> bytes.</summary>
    public static bool TryRead(
        ReadOnlySpan<byte> bytes, out OptionType option, out OptionReplyType type, out uint length)
    {
        option = (OptionType)BinaryPrimitives.ReadUInt32BigEndian(bytes[8..]);
        type = (OptionReplyType)BinaryPrimitives.ReadUInt32BigEndian(bytes[12..]);
        length = BinaryPrimitives.ReadUInt32BigEndian(bytes[16..]);
        return BinaryPrimitives.ReadUInt64BigEndian(bytes) == Magic.OptionReply;
    }
}
