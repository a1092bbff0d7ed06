using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// "Structured reply chunk message", 20 bytes: magic 32, flags 16, type 16, cookie 64, length 32. "Extended reply chunk message",
/// 32 bytes: magic 32, flags 16, type 16, cookie 64, offset of the request 64, length 64. The payload follows.
/// </summary>
internal static class ReplyChunk
{
    public const int Size = 20;

    public const int ExtendedSize = 32;

    /// <summary>The payload of an OFFSET_DATA chunk up to its data: the offset, 64 bits.</summary>
    public const int DataPrefix = 8;

    /// <summary>The payload of an OFFSET_HOLE chunk: offset 64, size of the hole 32.</summary>
    public const int HolePayload = 12;

    /// <summary>The payload of an ERROR chunk up to its message: error 32, message length 16.</summary>
    public const int ErrorPrefix = 6;

    /// <summary>What an ERROR_OFFSET chunk has behind its message: the offset, 64 bits.</summary>
    public const int ErrorOffsetSuffix = 8;

    private const ushort Done = 1;

    public static int SizeOf(ReplyForm form) => form == ReplyForm.Extended ? ExtendedSize : Size;

    public static int DataSize(ReplyForm form) => SizeOf(form) + DataPrefix;

    public static int HoleSize(ReplyForm form) => SizeOf(form) + HolePayload;

    /// <summary>Writes the header of a chunk.</summary>
    public static void Write(
        Span<byte> bytes, ReplyForm form, ChunkType type, in RequestHeader request, uint length, bool done = true)
    {
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], done ? Done : (ushort)0);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], request.Cookie);
        if (form == ReplyForm.Extended)
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic.ExtendedReply);
            BinaryPrimitives.WriteUInt64BigEndian(bytes[16..], request.Offset);
            BinaryPrimitives.WriteUInt64BigEndian(bytes[24..], length);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic.StructuredReply);
            BinaryPrimitives.WriteUInt32BigEndian(bytes[16..], length);
        }
    }

    /// <summary>Writes an OFFSET_DATA chunk up to its data.</summary>
    public static void WriteData(
        Span<byte> bytes, ReplyForm form, in RequestHeader request, ulong offset, uint dataLength, bool done = true)
    {
        Write(bytes, form, ChunkType.OffsetData, request, dataLength + DataPrefix, done);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[SizeOf(form)..], offset);
    }

    /// <summary>Writes a whole OFFSET_HOLE chunk.</summary>
    public static void WriteHole(
        Span<byte> bytes, ReplyForm form, in RequestHeader request, ulong offset, uint holeLength, bool done)
    {
        Write(bytes, form, ChunkType.OffsetHole, request, HolePayload, done);
        bytes = bytes[SizeOf(form)..];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], holeLength);
    }

    /// <summary>Writes a whole ERROR chunk, or with an offset an ERROR_OFFSET chunk; returns its size.</summary>
    public static int WriteError(
        Span<byte> bytes, ReplyForm form, in RequestHeader request, uint error, ReadOnlySpan<byte> message, ulong? offset = null)
    {
        int length = ErrorSize(form, message.Length, offset is not null);
        ChunkType type = offset is null ? ChunkType.Error : ChunkType.ErrorOffset;
        Write(bytes, form, type, request, (uint)(length - SizeOf(form)));
        bytes = bytes[SizeOf(form)..];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, error);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)message.Length);
        message.CopyTo(bytes[ErrorPrefix..]);
        if (offset is { } at)
        {
            BinaryPrimitives.WriteUInt64BigEndian(bytes[(ErrorPrefix + message.Length)..], at);
        }
        return length;
    }

    /// <summary>The size of an ERROR or ERROR_OFFSET chunk.</summary>
    public static int ErrorSize(ReplyForm form, int messageLength, bool hasOffset)
        => SizeOf(form) + ErrorPrefix + messageLength + (hasOffset ? ErrorOffsetSuffix : 0);
}
