using System.Buffers.Binary;
using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins.Vhd;

/// <summary>Where the blocks of a dynamic disk are.</summary>
/// <remarks>
/// The header, big endian: byte 0 "cxsparse", 16 offset of the table (8), 28 number of its entries (4), 32 size of a block (4), 36
/// checksum (4). An entry of the table is the sector with which a block begins, or FFFFFFFFh. First comes a bitmap with a bit for
/// each sector of the block, then the sectors. Those that were never written have a 0 there, and are zeroes too.
/// </remarks>
internal sealed class DynamicMap : BlockMap
{
    private const int Sector = 512;
    private const int HeaderSize = 1024;
    private const int LargestBlock = 256 << 20;
    private const uint Unused = uint.MaxValue;

    private readonly long _fileSize;
    private readonly long _bitmapSize;

    private DynamicMap(TablePages tables, long table, long blockSize, long fileSize)
        : base(tables, table, blockSize)
    {
        _fileSize = fileSize;
        _bitmapSize = ((blockSize / Sector / 8) + Sector - 1) / Sector * Sector;
    }

    /// <summary>Reads the header that a footer points to.</summary>
    /// <exception cref="NbdException">It is damaged, or of a kind that is not supported.</exception>
    public static async ValueTask<DynamicMap> OpenAsync(
        Footer footer, ImageDisk file, TablePages tables, CancellationToken cancellationToken)
    {
        if (footer.HeaderOffset > (ulong)file.Size || HeaderSize > file.Size - (long)footer.HeaderOffset)
        {
            throw Footer.Damaged($"its header is at {footer.HeaderOffset}, in a file of {file.Size} bytes");
        }
        byte[] header = new byte[HeaderSize];
        await file.ReadAsync(header, (long)footer.HeaderOffset, cancellationToken).ConfigureAwait(false);
        return Read(header, footer.Size, file.Size, tables);
    }

    protected override uint Read(ReadOnlySpan<byte> entry) => BinaryPrimitives.ReadUInt32BigEndian(entry);

    protected override long? PlaceOf(uint entry)
    {
        if (entry == Unused)
        {
            return null;
        }
        long place = ((long)entry * Sector) + _bitmapSize;
        return place < _fileSize ? place : throw Footer.Damaged($"a block at {place}, in a file of {_fileSize} bytes");
    }

    private static DynamicMap Read(ReadOnlySpan<byte> header, long size, long fileSize, TablePages tables)
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
        return new DynamicMap(tables, (long)table, blockSize, fileSize);
    }
}
