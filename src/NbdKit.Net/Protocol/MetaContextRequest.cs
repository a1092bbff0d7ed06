using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// The payload of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: name length 32, name, number of queries 32, each
/// with length 32 and a string.
/// </summary>
internal sealed class MetaContextRequest
{
    private MetaContextRequest(string name, IReadOnlyList<string> queries)
    {
        Name = name;
        Queries = queries;
    }

    public string Name { get; }

    public IReadOnlyList<string> Queries { get; }

    /// <summary>The payload for strings that were checked before.</summary>
    public static byte[] Payload(string name, IReadOnlyList<string> queries)
    {
        byte[][] strings = [WireString.Encode(name), .. queries.Select(WireString.Encode)];
        byte[] payload = new byte[4 + strings.Sum(s => 4 + s.Length)];
        Span<byte> rest = payload;
        for (int i = 0; i < strings.Length; i++)
        {
            BinaryPrimitives.WriteInt32BigEndian(rest, strings[i].Length);
            strings[i].CopyTo(rest[4..]);
            rest = rest[(4 + strings[i].Length)..];
            if (i == 0)
            {
                BinaryPrimitives.WriteInt32BigEndian(rest, queries.Count);
                rest = rest[4..];
            }
        }
        return payload;
    }

    /// <summary>Reads the payload; null, and what is wrong with it, if it breaks the rules.</summary>
    public static MetaContextRequest? Read(
        ReadOnlySpan<byte> bytes, int maximumQueries, out string fault, out bool tooMany)
    {
        tooMany = false;
        if (!TryReadString(ref bytes, out string name, out fault))
        {
            return null;
        }
        fault = "the number of queries is missing";
        if (bytes.Length < 4)
        {
            return null;
        }
        uint count = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        bytes = bytes[4..];
        fault = "the number of queries does not match the payload";
        if (count > (uint)bytes.Length / 4)
        {
            return null;
        }
        tooMany = count > maximumQueries;
        if (tooMany)
        {
            fault = $"more than {maximumQueries} queries";
            return null;
        }
        var queries = new List<string>((int)count);
        for (uint i = 0; i < count; i++)
        {
            if (!TryReadString(ref bytes, out string query, out fault))
            {
                return null;
            }
            queries.Add(query);
        }
        fault = "bytes follow the last query";
        return bytes.Length == 0 ? new MetaContextRequest(name, queries) : null;
    }

    private static bool TryReadString(ref ReadOnlySpan<byte> bytes, out string value, out string fault)
    {
        value = "";
        fault = "a string is longer than the payload";
        if (bytes.Length < 4)
        {
            return false;
        }
        uint length = BinaryPrimitives.ReadUInt32BigEndian(bytes);
        bytes = bytes[4..];
        if (length > (uint)bytes.Length)
        {
            return false;
        }
        fault = "a string is not valid";
        if (!WireString.TryDecode(bytes[..(int)length], out value))
        {
            return false;
        }
        bytes = bytes[(int)length..];
        return true;
    }
}
