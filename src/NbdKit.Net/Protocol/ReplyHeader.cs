using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// The head of what a server sends in the transmission phase, in one of three forms:
/// "Simple reply message", 16 bytes: magic 32, error 32, cookie 64;
/// "Structured reply chunk message", 20 bytes: magic 32, flags 16, type 16, cookie 64, length 32;
/// "Extended reply chunk message", 32 bytes: magic 32, flags 16, type 16, cookie 64, offset 64, length 64.
/// </summary>
internal readonly struct ReplyHeader
{
    /// <summary>The bytes that tell which form it is.</summary>
    public const int MagicSize = 4;

    private const ushort DoneFlag = 1;

    public uint Magic { get; private init; }

    public ulong Cookie { get; private init; }

    /// <summary>The error of a simple reply; 0 for success.</summary>
    public uint Error { get; private init; }

    /// <summary>Whether it is the last chunk of its reply. A simple reply always is.</summary>
    public bool IsDone { get; private init; }

    public ChunkType Type { get; private init; }

    /// <summary>The offset of the request that is answered; of extended chunks only.</summary>
    public ulong Offset { get; private init; }

    /// <summary>The bytes of payload that follow a chunk.</summary>
    public ulong Length { get; private init; }

    public bool IsSimple => Magic == Protocol.Magic.SimpleReply;

    /// <summary>The size of the form that begins with a magic, or 0 if there is none.</summary>
    public static int SizeOf(uint magic) => magic switch
    {
        Protocol.Magic.SimpleReply => SimpleReply.Size,
        Protocol.Magic.StructuredReply => ReplyChunk.Size,
        Protocol.Magic.ExtendedReply => 32,
        _ => 0,
    };

    /// <summary>Reads the magic. Needs <see cref="MagicSize"/> bytes.</summary>
    public static uint PeekMagic(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt32BigEndian(bytes);

    /// <summary>Reads a header whose magic is known to be one of the three. Needs as many bytes as <see cref="SizeOf"/> says.</summary>
    public static ReplyHeader Read(ReadOnlySpan<byte> bytes)
    {
        uint magic = PeekMagic(bytes);
        ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]);
        if (magic == Protocol.Magic.SimpleReply)
        {
            return new ReplyHeader
            {
                Magic = magic,
                Cookie = cookie,
                Error = BinaryPrimitives.ReadUInt32BigEndian(bytes[4..]),
                IsDone = true,
            };
        }
        bool extended = magic == Protocol.Magic.ExtendedReply;
        return new ReplyHeader
        {
            Magic = magic,
            Cookie = cookie,
            // Flags that nobody defined yet are ignored.
            IsDone = (BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]) & DoneFlag) != 0,
            Type = (ChunkType)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]),
            Offset = extended ? BinaryPrimitives.ReadUInt64BigEndian(bytes[16..]) : 0,
            Length = extended
                ? BinaryPrimitives.ReadUInt64BigEndian(bytes[24..])
                : BinaryPrimitives.ReadUInt32BigEndian(bytes[16..]),
        };
    }
}
