using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// The requests of a client: "Request message", 28 bytes: magic 32, command flags 16, type 16, cookie 64, offset 64, length 32;
/// and "Extended request message", 32 bytes: the same with a length of 64 bits. A payload follows.
/// </summary>
internal static class RequestWriter
{
    public const int ExtendedSize = 32;

    /// <summary>The bytes of the effect length and one context in the payload of a block status.</summary>
    public const int StatusPayloadSize = 8 + 4;

    public static int SizeOf(bool extended) => extended ? ExtendedSize : RequestHeader.Size;

    public static void Write(
        Span<byte> bytes, bool extended, CommandFlags flags, CommandType type, ulong cookie, ulong offset, ulong length)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, extended ? Magic.ExtendedRequest : Magic.Request);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], cookie);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[16..], offset);
        if (extended)
        {
            BinaryPrimitives.WriteUInt64BigEndian(bytes[24..], length);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes[24..], checked((uint)length));
        }
    }

    /// <summary>The payload of a block status that asks for one context: effect length 64, context id 32.</summary>
    public static byte[] StatusPayload(ulong effectLength, uint context)
    {
        byte[] bytes = new byte[StatusPayloadSize];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, effectLength);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), context);
        return bytes;
    }
}
