using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>What a server begins with, 18 bytes: NBDMAGIC 64, IHAVEOPT 64, handshake flags 16 ("Newstyle negotiation").</summary>
internal static class Greeting
{
    public const int Size = 18;

    /// <summary>The second number of the oldstyle greeting, which has no options and no TLS.</summary>
    private const ulong Oldstyle = 0x0000_4202_8186_1253;

    /// <summary>What is wrong with the first 16 bytes, or null.</summary>
    public static string? Fault(ReadOnlySpan<byte> bytes, out bool oldstyle)
    {
        ulong version = BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]);
        bool isNbd = BinaryPrimitives.ReadUInt64BigEndian(bytes) == Magic.Init;
        oldstyle = isNbd && version == Oldstyle;
        return !isNbd ? "what answers there is no NBD server"
            : oldstyle ? "the server speaks the oldstyle protocol, which is not supported"
            : version != Magic.Option ? "the server's greeting is of an unknown kind"
            : null;
    }

    /// <summary>The handshake flags in the last 2 of the bytes.</summary>
    public static HandshakeFlags Flags(ReadOnlySpan<byte> bytes)
        => (HandshakeFlags)BinaryPrimitives.ReadUInt16BigEndian(bytes[16..]);
}
