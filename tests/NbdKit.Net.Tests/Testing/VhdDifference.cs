using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>Differencing VHD images, made by hand.</summary>
internal static class VhdDifference
{
    private const int Header = 512;
    private const int Table = 1536;

    /// <summary>Makes an image.</summary>
    /// <param name="disk">What it says; its length is the size of the disk.</param>
    /// <param name="block">The size of its blocks.</param>
    /// <param name="isHere">For each sector whether it is in the image and not in the parent.</param>
    /// <param name="id">Its id.</param>
    /// <param name="parent">The id of its parent.</param>
    /// <param name="isWhole">Which blocks are there even if they have no sector.</param>
    public static byte[] Make(byte[] disk, int block, bool[] isHere, Guid id, Guid parent, Func<int, bool> isWhole)
    {
        int blocks = (disk.Length + block - 1) / block;
        int bitmap = ((block / 512) + 4095) / 4096 * 512;
        var image = new List<byte>(new byte[Table + (((blocks * 4) + 511) / 512 * 512)]);
        byte[] table = new byte[image.Count - Table];
        table.AsSpan().Fill(0xFF);
        for (int i = 0; i < blocks; i++)
        {
            int first = i * block / 512;
            int count = Math.Min(block / 512, isHere.Length - first);
            if (!isHere.AsSpan(first, count).Contains(true) && !isWhole(i))
            {
                continue;
            }
            BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(i * 4), image.Count / 512);
            byte[] content = new byte[bitmap + block];
            content.AsSpan(bitmap).Fill(0xDD);
            for (int sector = 0; sector < count; sector++)
            {
                if (isHere[first + sector])
                {
                    content[sector / 8] |= (byte)(0x80 >> (sector % 8));
                    int at = (first + sector) * 512;
                    disk.AsSpan(at, Math.Min(512, disk.Length - at)).CopyTo(content.AsSpan(bitmap + (sector * 512)));
                }
            }
            image.AddRange(content);
        }
        byte[] header = new byte[1024];
        "cxsparse"u8.CopyTo(header);
        BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(16), Table);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(28), blocks);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(32), block);
        parent.TryWriteBytes(header.AsSpan(40), bigEndian: true, out _);
        Encoding.BigEndianUnicode.GetBytes("base.vhd", header.AsSpan(64));
        Sum(header, 36);
        byte[] footer = new byte[512];
        "conectix"u8.CopyTo(footer);
        BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(16), Header);
        "win "u8.CopyTo(footer.AsSpan(28));
        BinaryPrimitives.WriteInt64BigEndian(footer.AsSpan(48), disk.Length);
        BinaryPrimitives.WriteInt32BigEndian(footer.AsSpan(60), 4);
        id.TryWriteBytes(footer.AsSpan(68), bigEndian: true, out _);
        Sum(footer, 64);
        image.AddRange(footer);
        byte[] all = [.. image];
        footer.CopyTo(all, 0);
        header.CopyTo(all, Header);
        table.CopyTo(all, Table);
        return all;
    }

    private static void Sum(byte[] structure, int checksum)
    {
        uint sum = 0;
        foreach (byte b in structure)
        {
            sum += b;
        }
        BinaryPrimitives.WriteUInt32BigEndian(structure.AsSpan(checksum), ~sum);
    }
}
