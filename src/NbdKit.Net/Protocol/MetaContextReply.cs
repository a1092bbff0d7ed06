using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>The payload of NBD_REP_META_CONTEXT: context id 32, then its name up to the end.</summary>
internal static class MetaContextReply
{
    /// <summary>The largest payload that obeys the rules for strings.</summary>
    public const int MaximumBytes = 4 + WireString.MaximumBytes;

    /// <summary>Reads the payload; false if it breaks the rules. Empty names mean nothing either.</summary>
    public static bool TryRead(ReadOnlySpan<byte> bytes, out uint id, out string name)
    {
        id = 0;
        name = "";
        if (bytes.Length <= 4)
        {
            return false;
        }
        id = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        return WireString.TryDecode(bytes[4..], out name);
    }
}
