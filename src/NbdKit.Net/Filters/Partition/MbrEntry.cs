using System.Buffers.Binary;

namespace NbdKit.Filters.Partition;

/// <summary>One of the four entries of a boot record: 16 bytes from byte 446 on.</summary>
/// <remarks>
/// <code>
/// 0    status                  4    type                     8   start (32)
/// 1-3  first sector in CHS     5-7  last sector in CHS      12   count (32), little endian
/// </code>
/// </remarks>
/// <param name="Type">What is in the partition; 0 for nothing.</param>
/// <param name="Start">Its first sector; what it is counted from depends on the record.</param>
/// <param name="Count">Its number of sectors.</param>
internal readonly record struct MbrEntry(byte Type, long Start, long Count)
{
    private const int FirstOffset = 446;
    private const int Size = 16;

    public bool IsUsed => Type != 0 && Count != 0;

    /// <summary>Whether it holds a chain of logical partitions (or, in that chain, is a link).</summary>
    public bool IsExtended => Type is 0x05 or 0x0F or 0x85;

    public static MbrEntry Read(ReadOnlySpan<byte> sector, int index)
    {
        ReadOnlySpan<byte> entry = sector.Slice(FirstOffset + (index * Size), Size);
        return new MbrEntry(
            entry[4],
            BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]),
            BinaryPrimitives.ReadUInt32LittleEndian(entry[12..]));
    }
}
