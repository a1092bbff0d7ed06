using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// The payload of NBD_OPT_INFO and NBD_OPT_GO: name length 32, name, number of information requests 16, each of 16 bits.
/// </summary>
internal sealed class InfoRequest
{
    // Name, description and block size.
    private const int KnownTypes = 3;

    private InfoRequest(string name, IReadOnlyList<InfoType> types)
    {
        Name = name;
        Types = types;
    }

    public string Name { get; }

    /// <summary>What is asked for, each type once, in the order asked; unknown types are left out.</summary>
    public IReadOnlyList<InfoType> Types { get; }

    /// <summary>The payload for a name that was checked before.</summary>
    public static byte[] Payload(string name, params ReadOnlySpan<InfoType> types)
    {
        byte[] nameBytes = WireString.Encode(name);
        byte[] payload = new byte[4 + nameBytes.Length + 2 + (2 * types.Length)];
        BinaryPrimitives.WriteInt32BigEndian(payload, nameBytes.Length);
        nameBytes.CopyTo(payload.AsSpan(4));
        Span<byte> rest = payload.AsSpan(4 + nameBytes.Length);
        BinaryPrimitives.WriteUInt16BigEndian(rest, (ushort)types.Length);
        foreach (InfoType type in types)
        {
            rest = rest[2..];
            BinaryPrimitives.WriteUInt16BigEndian(rest, (ushort)type);
        }
        return payload;
    }

    /// <summary>Reads the payload; null, and what is wrong with it, if it breaks the rules.</summary>
    public static InfoRequest? Read(ReadOnlySpan<byte> bytes, out string fault)
    {
        fault = "the payload is shorter than 6 bytes";
        if (bytes.Length < 6)
        {
            return null;
        }
        uint nameLength = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        fault = "the name is longer than the payload";
        if (nameLength > (uint)(bytes.Length - 6))
        {
            return null;
        }
        fault = "the name is not a valid string";
        if (!WireString.TryDecode(bytes.Slice(4, (int)nameLength), out string name))
        {
            return null;
        }
        ReadOnlySpan<byte> rest = bytes[(4 + (int)nameLength)..];
        int count = BinaryPrimitives.ReadUInt16BigEndian(rest);
        rest = rest[2..];
        fault = "the number of information requests does not match the payload";
        if (rest.Length != count * 2)
        {
            return null;
        }
        var types = new List<InfoType>();
        for (; rest.Length > 0 && types.Count < KnownTypes; rest = rest[2..])
        {
            var type = (InfoType)BinaryPrimitives.ReadUInt16BigEndian(rest);
            if (type is InfoType.Name or InfoType.Description or InfoType.BlockSize && !types.Contains(type))
            {
                types.Add(type);
            }
        }
        return new InfoRequest(name, types);
    }
}
