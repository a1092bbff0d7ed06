using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Plugins.Images;

/// <summary>
/// What a differencing image says of its parent ("VHDX Format Specification", 2.6.2.6): pairs of names and values in UTF-16.
/// All little endian; offsets count from the beginning:
/// <code>
///  0 GUID of the kind (16)  18 number of pairs (2)
/// 20 entries of 12: offset of the name (4), of the value (4), length of the name in bytes (2), of the value (2)
/// </code>
/// </summary>
/// <param name="DataIds">The GUIDs of the parent's data, any of which it may have: none if they are not known.</param>
/// <param name="Path">Where the parent was, or "".</param>
internal sealed record VhdxParent(IReadOnlyList<Guid> DataIds, string Path)
{
    /// <summary>The least that there can be of it.</summary>
    public const int LeastLength = 20;

    private const int EntrySize = 12;

    private static readonly Guid Kind = new("B04AEFB7-D19E-4A81-B789-25B8E9445913");

    /// <exception cref="NbdException">It is damaged (EINVAL).</exception>
    public static VhdxParent Parse(ReadOnlySpan<byte> item)
    {
        List<Guid> ids = [];
        string path = "";
        if (new Guid(item[..16]) != Kind)
        {
            return new VhdxParent(ids, path);
        }
        int count = BinaryPrimitives.ReadUInt16LittleEndian(item[18..]);
        for (int i = 0; i < count; i++)
        {
            int at = LeastLength + (i * EntrySize);
            ReadOnlySpan<byte> entry = at + EntrySize <= item.Length ? item.Slice(at, EntrySize) : throw Damaged();
            string name = Text(item, entry, 0, 8);
            if (name is "parent_linkage" or "parent_linkage2")
            {
                ids.Add(Guid.TryParse(Text(item, entry, 4, 10), out Guid id) ? id : throw Damaged());
            }
            else if (path.Length == 0 && name is "relative_path" or "absolute_win32_path")
            {
                path = Text(item, entry, 4, 10);
            }
        }
        return new VhdxParent(ids, path);
    }

    private static string Text(ReadOnlySpan<byte> item, ReadOnlySpan<byte> entry, int offset, int length)
    {
        uint from = BinaryPrimitives.ReadUInt32LittleEndian(entry[offset..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(entry[length..]);
        return from <= item.Length && count <= item.Length - (int)from && count % 2 == 0
            ? Encoding.Unicode.GetString(item.Slice((int)from, count))
            : throw Damaged();
    }

    private static NbdException Damaged() => VhdxRegions.Damaged("what it says of its parent cannot be read");
}
