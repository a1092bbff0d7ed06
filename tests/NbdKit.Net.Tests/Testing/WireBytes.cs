using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>Puts together the bytes of a message by hand, big-endian.</summary>
internal sealed class WireBytes
{
    private readonly List<byte> _bytes = [];

    public static byte[] Option(uint option, ReadOnlySpan<byte> data)
        => new WireBytes().U64(Magic.IHaveOpt).U32(option).U32((uint)data.Length).Raw(data).ToArray();

    public static byte[] Request(
        ushort command, ulong cookie, ulong offset, uint length, ushort flags = 0, uint magic = Magic.Request)
        => new WireBytes().U32(magic).U16(flags).U16(command).U64(cookie).U64(offset).U32(length).ToArray();

    public static byte[] ExtendedRequest(
        ushort command, ulong cookie, ulong offset, ulong length, ushort flags = 0, uint magic = Magic.ExtendedRequest)
        => new WireBytes().U32(magic).U16(flags).U16(command).U64(cookie).U64(offset).U64(length).ToArray();

    /// <summary>The data of NBD_OPT_INFO and NBD_OPT_GO.</summary>
    public static byte[] InfoRequest(ReadOnlySpan<byte> name, params ReadOnlySpan<ushort> infos)
    {
        WireBytes bytes = new WireBytes().U32((uint)name.Length).Raw(name).U16((ushort)infos.Length);
        foreach (ushort info in infos)
        {
            bytes.U16(info);
        }
        return bytes.ToArray();
    }

    /// <summary>The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.</summary>
    public static byte[] MetaRequest(ReadOnlySpan<byte> name, params ReadOnlySpan<string> queries)
    {
        WireBytes bytes = new WireBytes().U32((uint)name.Length).Raw(name).U32((uint)queries.Length);
        foreach (string query in queries)
        {
            bytes.Text(query);
        }
        return bytes.ToArray();
    }

    public WireBytes U16(ushort value)
    {
        Span<byte> bytes = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, value);
        return Raw(bytes);
    }

    public WireBytes U32(uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return Raw(bytes);
    }

    public WireBytes U64(ulong value)
    {
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        return Raw(bytes);
    }

    public WireBytes Raw(params ReadOnlySpan<byte> bytes)
    {
        _bytes.AddRange(bytes);
        return this;
    }

    public WireBytes Zeroes(int count) => Raw(new byte[count]);

    /// <summary>A string with its 32-bit length in front.</summary>
    public WireBytes Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        return U32((uint)bytes.Length).Raw(bytes);
    }

    public byte[] ToArray() => [.. _bytes];
}
