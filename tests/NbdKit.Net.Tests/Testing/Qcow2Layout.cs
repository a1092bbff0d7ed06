using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>
/// Writes the least there can be of a qcow2 image: header, one L1 table, its L2 tables, and behind them the clusters of the disk, all
/// allocated and in order. Tests patch it from there.
/// </summary>
internal sealed class Qcow2Layout
{
    public const int HeaderLength = 104;

    private readonly long _tables;

    /// <param name="size">The size of the disk.</param>
    /// <param name="clusterBits">The size of a cluster is 2 to the power of this.</param>
    /// <param name="version">2 or 3.</param>
    /// <param name="subclusters">Whether entries are extended: all 32 parts of each cluster are allocated.</param>
    public Qcow2Layout(long size, int clusterBits = 9, int version = 3, bool subclusters = false)
    {
        Size = size;
        ClusterBits = clusterBits;
        Version = version;
        EntrySize = subclusters ? 16 : 8;
        Clusters = (size + Cluster - 1) >> clusterBits;
        _tables = ((Clusters * EntrySize) + Cluster - 1) >> clusterBits;
        L2 = Cluster + (((_tables * 8) + Cluster - 1) & -Cluster);
        Data = L2 + (_tables << clusterBits);
    }

    public long Size { get; }

    public int ClusterBits { get; }

    public int Version { get; }

    public int EntrySize { get; }

    public long Cluster => 1L << ClusterBits;

    /// <summary>The number of clusters of the disk.</summary>
    public long Clusters { get; }

    /// <summary>Where the L1 table is.</summary>
    public int L1 => (int)Cluster;

    /// <summary>Where the L2 tables are.</summary>
    public long L2 { get; }

    /// <summary>Where the first cluster of the disk is.</summary>
    public long Data { get; }

    /// <summary>Where the entry of a cluster is.</summary>
    public int Entry(long cluster) => (int)(L2 + (cluster * EntrySize));

    /// <summary>An image of a disk.</summary>
    public static byte[] Image(byte[] disk, int clusterBits = 9, int version = 3)
    {
        var layout = new Qcow2Layout(disk.Length, clusterBits, version);
        return layout.Image(disk);
    }

    /// <summary>An image of a disk of the right size.</summary>
    public byte[] Image(byte[] disk)
    {
        byte[] image = new byte[Data + (Clusters << ClusterBits)];
        Write(image);
        disk.CopyTo(image, Data);
        return image;
    }

    /// <summary>Writes all but the clusters of the disk.</summary>
    public void Write(Span<byte> image)
    {
        image[..(int)Data].Clear();
        U32(image, 0, 0x514649FB);
        U32(image, 4, Version);
        U32(image, 20, ClusterBits);
        U64(image, 24, Size);
        U32(image, 36, (int)_tables);
        U64(image, 40, L1);
        if (Version == 3)
        {
            U64(image, 72, EntrySize == 16 ? 0x10 : 0);
            U32(image, 96, 4);
            U32(image, 100, HeaderLength);
        }
        for (int i = 0; i < _tables; i++)
        {
            U64(image, L1 + (i * 8), (L2 + (i * Cluster)) | long.MinValue);
        }
        for (long i = 0; i < Clusters; i++)
        {
            U64(image, Entry(i), (Data + (i * Cluster)) | long.MinValue);
            if (EntrySize == 16)
            {
                U64(image, Entry(i) + 8, uint.MaxValue);
            }
        }
    }

    /// <summary>Names a backing file in an image of version 3.</summary>
    public static byte[] WithBacking(byte[] image, string name, string? format)
    {
        int at = HeaderLength;
        if (format is not null)
        {
            at = Extension(image, at, 0xE2792ACA, Encoding.UTF8.GetBytes(format));
        }
        U64(image, 8, at + 8);
        U32(image, 16, Encoding.UTF8.GetBytes(name, image.AsSpan(at + 8)));
        return image;
    }

    /// <summary>Writes an extension of the header, and returns where the next one begins.</summary>
    public static int Extension(byte[] image, int at, uint type, byte[] data)
    {
        U32(image, at, (int)type);
        U32(image, at + 4, data.Length);
        data.CopyTo(image, at + 8);
        return at + 8 + ((data.Length + 7) & ~7);
    }

    public static void U32(Span<byte> image, int at, int value) => BinaryPrimitives.WriteInt32BigEndian(image[at..], value);

    public static void U64(Span<byte> image, int at, long value) => BinaryPrimitives.WriteInt64BigEndian(image[at..], value);
}
