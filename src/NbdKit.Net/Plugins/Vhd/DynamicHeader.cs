using System.Buffers.Binary;
using System.Text;
using NbdKit.Layers;

namespace NbdKit.Plugins.Vhd;

/// <summary>What the header of a dynamic or differencing disk says.</summary>
/// <remarks>
/// Big endian: byte 0 "cxsparse", 16 offset of the table (8), 28 number of its entries (4), 32 size of a block (4), 36 checksum (4).
/// In differencing disks: 40 unique id of the parent (16), 64 its name in UTF-16 (512).
/// </remarks>
/// <param name="Table">Where the table of the blocks is. All that the disk needs of it is in the file.</param>
/// <param name="BlockSize">The size of a block.</param>
/// <param name="ParentId">The id of the parent.</param>
/// <param name="ParentName">The name that the file of the parent had.</param>
internal sealed record DynamicHeader(long Table, long BlockSize, Guid ParentId, string ParentName)
{
    private const int Length = 1024;
    private const int LargestBlock = 256 << 20;

    public const int Sector = 512;

    /// <summary>The entry of the table for a block that is not in the image.</summary>
    public const uint Unused = uint.MaxValue;

    /// <summary>The size of the bitmap that a block begins with: a bit for each sector, the highest of a byte first.</summary>
    public long BitmapSize => ((BlockSize / Sector) + (Sector * 8) - 1) / (Sector * 8) * Sector;

    /// <summary>Reads the header that a footer points to.</summary>
    /// <exception cref="NbdException">It is damaged.</exception>
    public static async ValueTask<DynamicHeader> ReadAsync(Footer footer, ImageDisk file, CancellationToken cancellationToken)
    {
        if (footer.HeaderOffset > (ulong)file.Size || Length > file.Size - (long)footer.HeaderOffset)
        {
            throw Footer.Damaged($"its header is at {footer.HeaderOffset}, in a file of {file.Size} bytes");
        }
        byte[] header = new byte[Length];
        await file.ReadAsync(header, (long)footer.HeaderOffset, cancellationToken).ConfigureAwait(false);
        return Parse(header, footer.Size, file.Size);
    }

    private static DynamicHeader Parse(ReadOnlySpan<byte> header, long size, long fileSize)
    {
        if (!header.StartsWith("cxsparse"u8) || !Footer.IsWhole(header, 36))
        {
            throw Footer.Damaged("the header of the dynamic disk is none, or has the wrong checksum");
        }
        uint blockSize = BinaryPrimitives.ReadUInt32BigEndian(header[32..]);
        if (blockSize is < Sector or > LargestBlock || !uint.IsPow2(blockSize))
        {
            throw Footer.Damaged($"blocks of {blockSize} bytes");
        }
        ulong table = BinaryPrimitives.ReadUInt64BigEndian(header[16..]);
        uint count = BinaryPrimitives.ReadUInt32BigEndian(header[28..]);
        long needed = size == 0 ? 0 : ((size - 1) / blockSize) + 1;
        if (needed > count)
        {
            throw Footer.Damaged($"a table of {count} blocks for a disk of {size} bytes, which needs {needed}");
        }
        if (table % sizeof(uint) != 0 || table > (ulong)fileSize || needed * sizeof(uint) > fileSize - (long)table)
        {
            throw Footer.Damaged($"a table of {needed} blocks at {table}, in a file of {fileSize} bytes");
        }
        string name = Encoding.BigEndianUnicode.GetString(header.Slice(64, 512)).Split('\0')[0];
        return new DynamicHeader((long)table, blockSize, new Guid(header.Slice(40, 16), bigEndian: true), name);
    }
}
