using System.Text;

namespace NbdKit.Filters.Qcow2;

/// <summary>The header of an image, checked.</summary>
/// <remarks>
/// Byte 0 magic (4), 4 version (4), 8 offset and 16 length of the name of the backing file (8, 4), 20 cluster bits (4), 24 size of
/// the disk (8), 32 encryption (4), 36 entries of the L1 table (4), 40 its offset (8), 60 number of snapshots (4), 64 their offset
/// (8). Since version 3: 72 incompatible features (8), 100 length of the header (4), 104 compression type (1). Extensions follow
/// the header: type (4), length (4), and data padded to 8 bytes.
/// </remarks>
internal sealed partial class Header
{
    public const uint Magic = 0x5146_49FB;

    private const int Version2Length = 72;
    private const int Version3Length = 104;
    private const int LargestName = 1023;
    private const uint MostSnapshots = 65_536;

    private Header()
    {
    }

    public int ClusterBits { get; private init; }

    public int ClusterSize => 1 << ClusterBits;

    /// <summary>The size of the disk in bytes.</summary>
    public long Size { get; private init; }

    public L1Table L1 { get; private init; }

    /// <summary>Whether a bit of an entry means zeroes: in version 2 it is reserved.</summary>
    public bool HasZeroFlag { get; private init; }

    /// <summary>Whether clusters are divided in 32, each of which is allocated or not.</summary>
    public bool HasSubclusters { get; private init; }

    public bool IsCorrupt { get; private init; }

    public uint SnapshotCount { get; private init; }

    public ulong SnapshotOffset { get; private init; }

    public string? BackingFile { get; private init; }

    public string? BackingFormat { get; private set; }

    /// <summary>Whether clusters are in another file.</summary>
    public bool HasDataFile { get; private init; }

    public string? DataFile { get; private set; }

    /// <exception cref="NbdException">The image is none, is damaged, or is of a kind that is not supported.</exception>
    /// <param name="start">What the image begins with: its first cluster, or all of it if it is smaller.</param>
    public static Header Read(ReadOnlySpan<byte> start)
    {
        if (start.Length < Version2Length || start.U32(0) != Magic)
        {
            throw Fault.Refused("this is not a qcow2 image: its magic number is missing");
        }
        uint version = start.U32(4);
        if (version is not (2 or 3))
        {
            throw Fault.Refused($"the qcow2 image has version {version}; versions 2 and 3 can be read");
        }
        int clusterBits = ClusterBitsOf(start);
        start = start[..Math.Min(start.Length, 1 << clusterBits)];
        ulong features = 0;
        uint length = Version2Length;
        if (version == 3)
        {
            if (start.Length < Version3Length)
            {
                throw Fault.Damaged("it ends inside its header");
            }
            features = start.U64(72);
            length = start.U32(100);
            if (length < Version3Length || length > start.Length)
            {
                throw Fault.Damaged($"its header has {length} bytes");
            }
        }
        if (start.U32(32) is not 0 and var encryption)
        {
            string method = encryption switch { 1 => "AES", 2 => "LUKS", _ => $"method {encryption}" };
            throw Fault.Refused($"the qcow2 image is encrypted ({method}), which is not supported");
        }
        ulong size = start.U64(24);
        if (size > long.MaxValue)
        {
            throw Fault.Damaged($"a disk of {size} bytes");
        }
        bool hasSubclusters = (features & Features.ExtendedL2) != 0;
        if (hasSubclusters && clusterBits < 14)
        {
            throw Fault.Damaged($"clusters of {1 << clusterBits} bytes are too small for subclusters");
        }
        var header = new Header
        {
            ClusterBits = clusterBits,
            Size = (long)size,
            L1 = new L1Table(start.U64(40), start.U32(36)),
            HasZeroFlag = version == 3,
            HasSubclusters = hasSubclusters,
            IsCorrupt = (features & Features.Corrupt) != 0,
            HasDataFile = (features & Features.DataFile) != 0,
            SnapshotCount = start.U32(60) is <= MostSnapshots and var count ? count : throw Fault.Damaged($"{start.U32(60)} snapshots"),
            SnapshotOffset = start.U64(64),
            BackingFile = BackingFileOf(start),
        };
        header.ReadExtensions(start, (int)length, features);
        if (CompressionTypeOf(start, length, features) is not 0 and var type)
        {
            throw Fault.Refused(
                $"the qcow2 image has compression type {type}{(type == 1 ? " (zstd)" : "")}; only type 0 (zlib) is supported");
        }
        return header;
    }

    /// <summary>The number of bits that a header says clusters have, so that the whole first cluster can be read.</summary>
    public static int ClusterBitsOf(ReadOnlySpan<byte> start)
        => start.U32(20) is >= 9 and <= 21 and var bits
            ? (int)bits
            : throw Fault.Damaged($"clusters of 2^{start.U32(20)} bytes; they have 2^9 to 2^21");

    private static int CompressionTypeOf(ReadOnlySpan<byte> start, uint length, ulong features)
    {
        int type = length > Version3Length ? start[Version3Length] : 0;
        return (features & Features.CompressionType) != 0 == (type != 0)
            ? type
            : throw Fault.Damaged($"the compression type is {type}, which the incompatible features contradict");
    }

    private static string? BackingFileOf(ReadOnlySpan<byte> start)
    {
        ulong offset = start.U64(8);
        uint length = start.U32(16);
        if (offset == 0 || length == 0)
        {
            return null;
        }
        if (length > LargestName || offset > (uint)start.Length || length > (uint)start.Length - offset)
        {
            throw Fault.Damaged($"the name of its backing file has {length} bytes at {offset}");
        }
        return Encoding.UTF8.GetString(start.Slice((int)offset, (int)length));
    }
}
