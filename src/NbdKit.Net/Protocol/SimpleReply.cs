using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>"Simple reply message", 16 bytes: magic 32, error 32, cookie 64. The data of a read follows.</summary>
internal static class SimpleReply
{
    public const int Size = 16;

    public static void Write(Span<byte> bytes, uint error, ulong cookie)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic.SimpleReply);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[4..], error);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], cookie);
    }
}
