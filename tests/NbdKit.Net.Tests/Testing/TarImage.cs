using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>A tar archive made by hand, for what GNU tar does not make.</summary>
internal sealed class TarImage
{
    private readonly MemoryStream _bytes = new();

    public const int Block = 512;

    public byte[] Bytes => _bytes.ToArray();

    /// <summary>A header with the name, the type and the size given, the size in octal if it fits.</summary>
    public static byte[] Header(string name, long size, char type = '0', string prefix = "", string magic = "ustar\0" + "00")
    {
        byte[] header = new byte[Block];
        Encoding.UTF8.GetBytes(name).CopyTo(header, 0);
        "0000644\0"u8.CopyTo(header.AsSpan(100));
        if (size < 1L << 33)
        {
            Encoding.ASCII.GetBytes(Convert.ToString(size, 8).PadLeft(11, '0') + "\0").CopyTo(header, 124);
        }
        else
        {
            header[124] = 0x80;
            System.Buffers.Binary.BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(128), size);
        }
        header[156] = (byte)type;
        Encoding.ASCII.GetBytes(magic).CopyTo(header, 257);
        Encoding.UTF8.GetBytes(prefix).CopyTo(header, 345);
        Seal(header);
        return header;
    }

    /// <summary>Puts the right checksum in.</summary>
    public static void Seal(Span<byte> header)
    {
        header.Slice(148, 8).Fill((byte)' ');
        int sum = 0;
        foreach (byte b in header[..Block])
        {
            sum += b;
        }
        Encoding.ASCII.GetBytes(Convert.ToString(sum, 8).PadLeft(6, '0') + "\0 ").CopyTo(header[148..]);
    }

    /// <summary>Adds a header and a content, filled up to whole blocks.</summary>
    public TarImage Add(string name, ReadOnlySpan<byte> content, char type = '0', string prefix = "")
    {
        _bytes.Write(Header(name, content.Length, type, prefix));
        _bytes.Write(content);
        _bytes.Write(new byte[-content.Length & (Block - 1)]);
        return this;
    }

    /// <summary>Adds bytes as they are.</summary>
    public TarImage AddRaw(ReadOnlySpan<byte> bytes)
    {
        _bytes.Write(bytes);
        return this;
    }

    /// <summary>Adds a pax header for the next member.</summary>
    public TarImage AddPax(params string[] records) => Add("pax", Pax(records), 'x');

    /// <summary>Adds the two blocks of zeroes that end an archive.</summary>
    public TarImage End() => AddRaw(new byte[2 * Block]);

    private static byte[] Pax(string[] records)
    {
        var text = new StringBuilder();
        foreach (string record in records)
        {
            int length = Encoding.UTF8.GetByteCount(record) + 3;
            length += length >= 100 ? 2 : length >= 10 ? 1 : 0;
            string whole = $"{length} {record}\n";
            // The length counts its own digits.
            int actual = Encoding.UTF8.GetByteCount(whole);
            text.Append(actual == length ? whole : $"{actual} {record}\n");
        }
        return Encoding.UTF8.GetBytes(text.ToString());
    }
}
