using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// "Request message", 28 bytes: magic 32, command flags 16, type 16, cookie 64, offset 64, length 32. The payload of a write
/// follows. "Extended request message", 32 bytes: the same with a length of 64 bits; a payload follows if a flag says so.
/// </summary>
internal readonly struct RequestHeader
{
    public const int Size = 28;

    public const int ExtendedSize = 32;

    public CommandFlags Flags { get; init; }

    public CommandType Type { get; init; }

    /// <summary>The client's own number for the request; opaque here.</summary>
    public ulong Cookie { get; init; }

    public ulong Offset { get; init; }

    public ulong Length { get; init; }

    /// <summary>
    /// Reads a header; false if the magic is wrong. Needs <see cref="Size"/> bytes, or <see cref="ExtendedSize"/>.
    /// </summary>
    public static bool TryRead(ReadOnlySpan<byte> bytes, bool extended, out RequestHeader header)
    {
        if (BinaryPrimitives.ReadUInt32BigEndian(bytes) != (extended ? Magic.ExtendedRequest : Magic.Request))
        {
            header = default;
            return false;
        }
        header = new RequestHeader
        {
            Flags = (CommandFlags)BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]),
            Type = (CommandType)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]),
            Cookie = BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]),
            Offset = BinaryPrimitives.ReadUInt64BigEndian(bytes[16..]),
            Length = extended ? BinaryPrimitives.ReadUInt64BigEndian(bytes[24..]) : BinaryPrimitives.ReadUInt32BigEndian(bytes[24..]),
        };
        return true;
    }

    /// <summary>Where a request begins in the export, from bytes that may be no valid request.</summary>
    public static long PeekOffset(ReadOnlySpan<byte> header) => BinaryPrimitives.ReadInt64BigEndian(header[16..]);
}
