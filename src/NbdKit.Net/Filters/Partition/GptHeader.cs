using System.Buffers.Binary;
using System.Numerics;

namespace NbdKit.Filters.Partition;

/// <summary>The header of a GUID partition table, at least 92 bytes at the start of a sector.</summary>
/// <remarks>
/// <code>
///  0  "EFI PART"             32  sector of the other header (64)   80  number of entries (32)
///  8  revision (32)          40  first usable sector (64)          84  size of an entry (32)
/// 12  header size (32)       48  last usable sector (64)           88  CRC of all entries (32)
/// 16  header CRC (32)        56  disk GUID
/// 24  sector of this (64)    72  first sector of the entries (64)  all little endian
/// </code>
/// </remarks>
internal sealed class GptHeader
{
    private const int SmallestSize = 92;
    private const int CrcOffset = 16;
    private const int SmallestEntry = 128;
    private const int LargestEntry = 4096;

    // 128 entries of 128 bytes is what everybody makes. The array is read as a whole for its checksum.
    private const long LargestArray = 4 << 20;

    private GptHeader()
    {
    }

    /// <summary>The sector of the other header, as this one says.</summary>
    public required long Alternate { get; init; }

    /// <summary>The first sector of the entries; they are inside the disk.</summary>
    public required long EntriesSector { get; init; }

    public required int EntryCount { get; init; }

    public required int EntrySize { get; init; }

    public required uint EntriesCrc { get; init; }

    public static bool HasSignature(ReadOnlySpan<byte> sector) => sector.StartsWith("EFI PART"u8);

    /// <summary>Reads a header, if it is one and everything that it says about the table can be true.</summary>
    /// <param name="sector">The sector's bytes.</param>
    /// <param name="number">The sector's number.</param>
    /// <param name="sectorCount">The number of sectors on the disk.</param>
    /// <param name="problem">What is wrong.</param>
    public static GptHeader? TryRead(ReadOnlySpan<byte> sector, long number, long sectorCount, out string problem)
    {
        problem = "";
        if (!HasSignature(sector))
        {
            problem = "no signature";
            return null;
        }
        uint size = BinaryPrimitives.ReadUInt32LittleEndian(sector[12..]);
        if (size < SmallestSize || size > sector.Length)
        {
            problem = $"a header of {size} bytes";
            return null;
        }
        // The checksum is made with zeroes in its own place.
        uint crc = Crc32.Append(Crc32.Start, sector[..CrcOffset]);
        crc = Crc32.Append(crc, stackalloc byte[sizeof(uint)]);
        crc = Crc32.Append(crc, sector[(CrcOffset + sizeof(uint))..(int)size]);
        if (Crc32.End(crc) != BinaryPrimitives.ReadUInt32LittleEndian(sector[CrcOffset..]))
        {
            problem = "wrong header checksum";
            return null;
        }
        if (BinaryPrimitives.ReadUInt64LittleEndian(sector[24..]) != (ulong)number)
        {
            problem = "a header that belongs to another sector";
            return null;
        }
        ulong alternate = BinaryPrimitives.ReadUInt64LittleEndian(sector[32..]);
        ulong entries = BinaryPrimitives.ReadUInt64LittleEndian(sector[72..]);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(sector[80..]);
        uint entrySize = BinaryPrimitives.ReadUInt32LittleEndian(sector[84..]);
        if (entrySize is < SmallestEntry or > LargestEntry || !BitOperations.IsPow2(entrySize))
        {
            problem = $"entries of {entrySize} bytes";
            return null;
        }
        if (count == 0 || count > LargestArray / entrySize)
        {
            problem = $"{count} entries";
            return null;
        }
        long arraySectors = (((long)count * entrySize) + sector.Length - 1) / sector.Length;
        if (entries < 2 || entries > (ulong)sectorCount || arraySectors > sectorCount - (long)entries)
        {
            problem = "entries outside the disk";
            return null;
        }
        return new GptHeader
        {
            Alternate = alternate < (ulong)sectorCount ? (long)alternate : 0,
            EntriesSector = (long)entries,
            EntryCount = (int)count,
            EntrySize = (int)entrySize,
            EntriesCrc = BinaryPrimitives.ReadUInt32LittleEndian(sector[88..]),
        };
    }
}
