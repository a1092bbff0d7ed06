using System.Numerics;
using System.Text;

namespace NbdKit.Filters.Qcow2;

/// <summary>The incompatible features that a header can name: those that a reader must know.</summary>
/// <remarks>
/// The feature name table of an image has entries of 48 bytes: at byte 0 the kind (0 is incompatible), at byte 1 the number of
/// the bit, at byte 2 the name, padded with zeroes.
/// </remarks>
internal static class Features
{
    public const ulong Corrupt = 0x2;
    public const ulong DataFile = 0x4;
    public const ulong CompressionType = 0x8;
    public const ulong ExtendedL2 = 0x10;

    // And 0x1, dirty: it says that reference counts may be wrong, and a reader needs none.
    private const ulong Readable = 0x1F;

    private const int EntrySize = 48;

    /// <summary>The names of those features without which the image cannot be read, or "".</summary>
    /// <param name="incompatible">The features of the image.</param>
    /// <param name="table">The image's own table of names; may be empty.</param>
    public static string Unreadable(ulong incompatible, ReadOnlySpan<byte> table)
    {
        var list = new List<string>();
        for (ulong left = incompatible & ~Readable; left != 0; left &= left - 1)
        {
            int bit = BitOperations.TrailingZeroCount(left);
            list.Add(NameOf(bit, table) ?? $"feature bit {bit}");
        }
        return string.Join(", ", list);
    }

    private static string? NameOf(int bit, ReadOnlySpan<byte> table)
    {
        for (; table.Length >= EntrySize; table = table[EntrySize..])
        {
            if (table[0] == 0 && table[1] == bit)
            {
                ReadOnlySpan<byte> name = table[2..EntrySize];
                int end = name.IndexOf((byte)0);
                return $"'{Encoding.UTF8.GetString(end < 0 ? name : name[..end])}' (bit {bit})";
            }
        }
        return null;
    }
}
