namespace NbdKit.Filters.Ext2;

/// <summary>
/// Content that is in the inode itself: the first 60 bytes in place of the map of blocks, the rest as the value of the
/// extended attribute <c>system.data</c> behind the inode's fields.
/// </summary>
/// <remarks>
/// Attributes begin with the magic EA020000h. Entries follow, up to four zero bytes: 0 length of the name (8), 1 kind of
/// name (8), 2 place of the value (16, from the first entry), 4 inode of the value (32), 8 length of the value (32),
/// 12 hash (32), 16 name, padded to four bytes.
/// </remarks>
internal static class InlineData
{
    private const uint Magic = 0xEA02_0000;
    private const int EntrySize = 16;
    private const byte SystemName = 7;

    /// <summary>Reads both parts; the second may be empty.</summary>
    public static (ReadOnlyMemory<byte> First, ReadOnlyMemory<byte> Second) Read(Inode inode)
        => (inode.Map, FindRest(inode, inode.AttributeSpace));

    /// <summary>Reads the content of a file or symbolic link.</summary>
    public static byte[] ReadContent(Inode inode)
    {
        (ReadOnlyMemory<byte> first, ReadOnlyMemory<byte> rest) = Read(inode);
        if (inode.Size > first.Length + rest.Length)
        {
            throw Fault.Damaged($"inode {inode.Number} has {first.Length + rest.Length} of its {inode.Size} bytes");
        }
        byte[] content = new byte[first.Length + rest.Length];
        first.CopyTo(content);
        rest.CopyTo(content.AsMemory(first.Length));
        return content[..(int)inode.Size];
    }

    private static ReadOnlyMemory<byte> FindRest(Inode inode, ReadOnlyMemory<byte> space)
    {
        if (space.Length < sizeof(uint) || space.Span.U32(0) != Magic)
        {
            return default;
        }
        space = space[sizeof(uint)..];
        ReadOnlySpan<byte> entries = space.Span;
        int at = 0;
        while (entries.Length - at >= EntrySize && entries.U32(at) != 0)
        {
            int nameLength = entries[at];
            if (nameLength > entries.Length - at - EntrySize)
            {
                throw Damaged(inode);
            }
            ReadOnlySpan<byte> name = entries.Slice(at + EntrySize, nameLength);
            if (entries[at + 1] == SystemName && name.SequenceEqual("data"u8))
            {
                int place = entries.U16(at + 2);
                uint length = entries.U32(at + 8);
                return length == 0 ? default
                    : entries.U32(at + 4) == 0 && place <= entries.Length && length <= entries.Length - place
                        ? space.Slice(place, (int)length)
                        : throw Damaged(inode);
            }
            at += EntrySize + ((nameLength + 3) & ~3);
        }
        return default;
    }

    private static NbdException Damaged(Inode inode)
        => Fault.Damaged($"inode {inode.Number} has extended attributes that are not inside it");
}
