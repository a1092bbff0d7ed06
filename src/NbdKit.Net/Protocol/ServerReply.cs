using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>The payload of NBD_REP_SERVER: name length 32, name, then the description up to the end.</summary>
internal static class ServerReply
{
    /// <summary>The largest payload that obeys the rules for strings.</summary>
    public const int MaximumBytes = 4 + (2 * WireString.MaximumBytes);

    /// <summary>Reads the payload; null, and what is wrong with it, if it breaks the rules.</summary>
    public static NbdExport? Read(ReadOnlySpan<byte> bytes, out string fault)
    {
        fault = "the payload is shorter than 4 bytes";
        if (bytes.Length < 4)
        {
            return null;
        }
        uint length = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        fault = "the name is longer than the payload";
        if (length > (uint)(bytes.Length - 4))
        {
            return null;
        }
        fault = "the name is not a valid string";
        if (!WireString.TryDecode(bytes.Slice(4, (int)length), out string name))
        {
            return null;
        }
        fault = "the description is not a valid string";
        if (!WireString.TryDecode(bytes[(4 + (int)length)..], out string description))
        {
            return null;
        }
        return new NbdExport(name, description.Length > 0 ? description : null);
    }
}
