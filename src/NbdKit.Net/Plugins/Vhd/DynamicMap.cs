using System.Buffers.Binary;
using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins.Vhd;

/// <summary>Where the blocks of a dynamic disk are.</summary>
/// <remarks>
/// An entry of the table is the sector with which a block begins, or FFFFFFFFh. First comes a bitmap with a bit for each sector of
/// the block, then the sectors. Those that were never written have a 0 there, and are zeroes too.
/// </remarks>
internal sealed class DynamicMap(DynamicHeader header, TablePages tables, long fileSize)
    : BlockMap(tables, header.Table, header.BlockSize)
{
    protected override uint Read(ReadOnlySpan<byte> entry) => BinaryPrimitives.ReadUInt32BigEndian(entry);

    protected override long? PlaceOf(uint entry)
    {
        if (entry == DynamicHeader.Unused)
        {
            return null;
        }
        long place = ((long)entry * DynamicHeader.Sector) + header.BitmapSize;
        return place < fileSize ? place : throw Footer.Damaged($"a block at {place}, in a file of {fileSize} bytes");
    }
}
