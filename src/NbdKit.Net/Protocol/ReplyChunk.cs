using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// "Structured reply chunk message", 20 bytes: magic 32, flags 16, type 16, cookie 64, length 32. Its payload follows.
/// </summary>
internal static class ReplyChunk
{
    public const int Size = 20;

    /// <summary>An OFFSET_DATA chunk up to its data: the header, then the offset, 64 bits.</summary>
    public const int DataSize = Size + 8;

    /// <summary>An ERROR chunk up to its message: the header, then error 32 and message length 16.</summary>
    public const int ErrorSize = Size + 6;

    private const ushort Done = 1;

    public static void Write(Span<byte> bytes, ChunkType type, ulong cookie, uint length, bool done = true)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic.StructuredReply);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], done ? Done : (ushort)0);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], cookie);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[16..], length);
    }

    public static void WriteData(Span<byte> bytes, ulong cookie, ulong offset, uint dataLength)
    {
        Write(bytes, ChunkType.OffsetData, cookie, dataLength + 8);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[Size..], offset);
    }

    public static void WriteError(Span<byte> bytes, ulong cookie, uint error, ReadOnlySpan<byte> message)
    {
        Write(bytes, ChunkType.Error, cookie, (uint)(6 + message.Length));
        BinaryPrimitives.WriteUInt32BigEndian(bytes[Size..], error);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[(Size + 4)..], (ushort)message.Length);
        message.CopyTo(bytes[ErrorSize..]);
    }
}
