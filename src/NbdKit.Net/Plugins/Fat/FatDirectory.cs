using System.Buffers.Binary;

namespace NbdKit.Plugins.Fat;

/// <summary>Directories as stored.</summary>
/// <remarks>
/// An entry has 32 bytes: name (11), attributes (1), reserved (1), time and date of creation (1 + 2 + 2), date of access (2),
/// high half of the first cluster (2), time and date of change (2 + 2), low half of the first cluster (2), size (4). Before it
/// stand the parts of the long name, the last part first: number (1), 5 characters, attributes 0x0f, 0, checksum of the short
/// name, 6 characters, 0 (2), 2 characters.
/// </remarks>
internal static class FatDirectory
{
    public const int EntrySize = 32;
    public const int CharactersOfEntry = 13;

    /// <summary>The largest number of entries of a directory.</summary>
    public const int MaximumEntries = 65_536;

    private const byte IsLabel = 0x08;
    private const byte IsDirectory = 0x10;
    private const byte IsChanged = 0x20;
    private const byte IsLongName = 0x0f;
    private const byte IsLastPart = 0x40;

    /// <summary>The bytes of a directory, whose entries have their clusters; the root has the label in it.</summary>
    public static byte[] Encode(FatNode directory, byte[] label)
    {
        byte[] bytes = new byte[directory.Size];
        Span<byte> rest = bytes;
        if (directory.Parent is not { } parent)
        {
            PutEntry(ref rest, label, IsLabel, directory, 0);
        }
        else
        {
            PutEntry(ref rest, ".          "u8, IsDirectory, directory, directory.FirstCluster);
            // The root goes by 0 here.
            PutEntry(ref rest, "..         "u8, IsDirectory, parent, parent.Parent is null ? 0 : parent.FirstCluster);
        }
        foreach (FatNode child in directory.Children!)
        {
            if (child.HasLongName)
            {
                PutLongName(ref rest, child);
            }
            PutEntry(ref rest, child.ShortName, child.Children is null ? IsChanged : IsDirectory, child, child.FirstCluster);
        }
        return bytes;
    }

    /// <summary>The bytes of the entries of a directory.</summary>
    public static long SizeOf(FatNode directory)
        => EntrySize * ((directory.Parent is null ? 1L : 2L) + directory.Children!.Sum(child => (long)child.Slots));

    private static void PutEntry(ref Span<byte> rest, ReadOnlySpan<byte> name, byte attributes, FatNode node, uint cluster)
    {
        Span<byte> entry = rest[..EntrySize];
        rest = rest[EntrySize..];
        name.CopyTo(entry);
        entry[11] = attributes;
        (ushort date, ushort time, byte hundredths) = Stamp(node.Modified);
        if ((attributes & IsLabel) == 0)
        {
            entry[13] = hundredths;
            BinaryPrimitives.WriteUInt16LittleEndian(entry[14..], time);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[16..], date);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[18..], date);
        }
        BinaryPrimitives.WriteUInt16LittleEndian(entry[20..], (ushort)(cluster >> 16));
        BinaryPrimitives.WriteUInt16LittleEndian(entry[22..], time);
        BinaryPrimitives.WriteUInt16LittleEndian(entry[24..], date);
        BinaryPrimitives.WriteUInt16LittleEndian(entry[26..], (ushort)cluster);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[28..], node.Children is null ? (uint)node.Size : 0);
    }

    private static void PutLongName(ref Span<byte> rest, FatNode node)
    {
        byte sum = Checksum(node.ShortName);
        int parts = node.Slots - 1;
        for (int part = parts; part > 0; part--)
        {
            Span<byte> entry = rest[..EntrySize];
            rest = rest[EntrySize..];
            entry[0] = (byte)(part | (part == parts ? IsLastPart : 0));
            entry[11] = IsLongName;
            entry[13] = sum;
            for (int i = 0; i < CharactersOfEntry; i++)
            {
                int at = ((part - 1) * CharactersOfEntry) + i;
                // A zero ends a name that does not fill its entry, and ones fill that.
                ushort unit = at < node.Name.Length ? node.Name[at] : at == node.Name.Length ? (ushort)0 : ushort.MaxValue;
                BinaryPrimitives.WriteUInt16LittleEndian(entry[(i < 5 ? 1 + (2 * i) : i < 11 ? 4 + (2 * i) : 6 + (2 * i))..], unit);
            }
        }
    }

    /// <summary>The sum over a short name that ties a long name to it.</summary>
    internal static byte Checksum(ReadOnlySpan<byte> shortName)
    {
        byte sum = 0;
        foreach (byte b in shortName)
        {
            sum = (byte)((byte)((sum << 7) | (sum >> 1)) + b);
        }
        return sum;
    }

    /// <summary>A time as date, time in steps of two seconds, and the hundredths that are left; 1980 to 2107.</summary>
    internal static (ushort Date, ushort Time, byte Hundredths) Stamp(DateTime time)
    {
        time = time.Year < 1980 ? new DateTime(1980, 1, 1) : time.Year > 2107 ? new DateTime(2107, 12, 31, 23, 59, 59) : time;
        return (
            (ushort)(((time.Year - 1980) << 9) | (time.Month << 5) | time.Day),
            (ushort)((time.Hour << 11) | (time.Minute << 5) | (time.Second / 2)),
            (byte)((time.Second % 2 * 100) + (time.Millisecond / 10)));
    }
}
