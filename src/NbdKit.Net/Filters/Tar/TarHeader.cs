using System.Text;

namespace NbdKit.Filters.Tar;

/// <summary>
/// One header block. Numbers are octal text, or base 256 where the first bit is set, most significant byte first:
/// <code>
///   0  name (100)      124  size (12)       157  name of link (100)
/// 100  mode (8)        136  time (12)       257  "ustar\0" "00", or "ustar  \0" of GNU tar, or neither
/// 108  user (8)        148  checksum (8)    345  prefix (155), only with "ustar\0": comes before the name, with a slash
/// 116  group (8)       156  type (1)        482  GNU tar, type S: 1 if a block with more of the sparse map follows
/// </code>
/// </summary>
internal readonly struct TarHeader
{
    public const int BlockSize = 512;

    private const int ChecksumAt = 148;
    private const int ChecksumLength = 8;
    private const int MoreAt = 482;

    private TarHeader(string name, long size, char type, bool hasMore)
    {
        Name = name;
        Size = size;
        Type = type;
        HasMore = hasMore;
    }

    /// <summary>The name, as far as the header has room for it.</summary>
    public string Name { get; }

    /// <summary>The size of the content that follows.</summary>
    public long Size { get; }

    /// <summary>What it is: <c>0</c> for a file.</summary>
    public char Type { get; }

    /// <summary>Whether a block with more of the map of a sparse file follows.</summary>
    public bool HasMore { get; }

    /// <summary>Reads a block.</summary>
    /// <returns>False if the checksum is wrong, or the size is not a number from 0 to 2^63-1.</returns>
    public static bool TryParse(ReadOnlySpan<byte> block, out TarHeader header)
    {
        header = default;
        if (!HasRightChecksum(block) || !TryNumber(block.Slice(124, 12), out long size))
        {
            return false;
        }
        string name = Text(block[..100]);
        // Only POSIX archives have a prefix; GNU tar has times and a sparse map in its place.
        if (block[257..].StartsWith("ustar\0"u8) && Text(block.Slice(345, 155)) is { Length: > 0 } prefix)
        {
            name = $"{prefix}/{name}";
        }
        char type = block[156] == 0 ? '0' : (char)block[156];
        // The size of a hard link is that of the file it leads to, which is not here.
        header = new TarHeader(name, type == '1' ? 0 : size, type, type == 'S' && block[MoreAt] == 1);
        return true;
    }

    /// <summary>The text up to the first zero byte.</summary>
    public static string Text(ReadOnlySpan<byte> field)
    {
        int end = field.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? field : field[..end]);
    }

    private static bool HasRightChecksum(ReadOnlySpan<byte> block)
    {
        // Of all bytes, its own place taken for blanks. Some programs added them with their signs.
        int sum = ' ' * ChecksumLength;
        int signed = sum;
        for (int i = 0; i < BlockSize; i++)
        {
            if (i is < ChecksumAt or >= ChecksumAt + ChecksumLength)
            {
                sum += block[i];
                signed += (sbyte)block[i];
            }
        }
        return TryNumber(block.Slice(ChecksumAt, ChecksumLength), out long given) && (given == sum || given == signed);
    }

    private static bool TryNumber(ReadOnlySpan<byte> field, out long value)
    {
        value = 0;
        bool isBinary = (field[0] & 0x80) != 0;
        if (isBinary)
        {
            // The second bit is the sign.
            if ((field[0] & 0x40) != 0)
            {
                return false;
            }
            value = field[0] & 0x3F;
            foreach (byte b in field[1..])
            {
                if (value > long.MaxValue >> 8)
                {
                    return false;
                }
                value = (value << 8) | b;
            }
            return true;
        }
        field = field.TrimStart((byte)' ');
        int digits = field.IndexOfAnyExceptInRange((byte)'0', (byte)'7');
        digits = digits < 0 ? field.Length : digits;
        foreach (byte b in field[..digits])
        {
            value = (value << 3) | (long)(b - '0');
        }
        // Twelve digits are 36 bits.
        return digits == field.Length || field[digits] is 0 or (byte)' ';
    }
}
