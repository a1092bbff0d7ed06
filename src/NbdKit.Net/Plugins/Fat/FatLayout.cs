using System.Numerics;

namespace NbdKit.Plugins.Fat;

/// <summary>
/// The size of the disk's parts, in sectors: partition table and gap (2048), boot sectors (32), two allocation tables of equal
/// size, clusters.
/// </summary>
internal readonly record struct FatLayout(uint Clusters, int ClusterSize)
{
    public const int SectorSize = 512;
    public const int PartitionStart = 2048;
    public const int Reserved = 32;

    /// <summary>Fewer than 65525 clusters are FAT16 to many readers, and some count them differently by a few.</summary>
    public const int MinimumClusters = 65_536;

    private const int MinimumClustersIfLarge = 1 << 20;
    private const int MaximumClusters = 0x0ffffff0;
    private const int MaximumClusterSize = 32_768;
    private const int LargeClusterSize = 4096;

    public int ClusterSectors => ClusterSize / SectorSize;

    /// <summary>The size of one table, such that the clusters begin at a multiple of 4 KiB.</summary>
    public long TableSectors => TableSectorsFor(Clusters);

    public long PartitionSectors => Reserved + (2 * TableSectors) + ((long)Clusters * ClusterSectors);

    public long TableStart => (PartitionStart + Reserved) * (long)SectorSize;

    public long TableSize => TableSectors * SectorSize;

    public long DataStart => TableStart + (2 * TableSize);

    public long Size => (PartitionStart + PartitionSectors) * SectorSize;

    /// <summary>The layout of a disk for these files and directories.</summary>
    /// <param name="nodes">What is to be held.</param>
    /// <param name="size">The size of the disk, or null for the least.</param>
    /// <exception cref="NbdException">It does not fit.</exception>
    public static FatLayout For(IReadOnlyList<FatNode> nodes, long? size)
    {
        FatLayout layout = size is { } given ? ForSize(nodes, given) : Smallest(nodes);
        return layout.PartitionSectors + PartitionStart <= uint.MaxValue
            ? layout
            : throw new NbdException(NbdError.InvalidArgument, "floppy: the disk would be larger than the 2 TiB of a FAT32 partition");
    }

    /// <summary>The clusters that an item of a size takes.</summary>
    public uint ClustersOf(long size) => (uint)((size + ClusterSize - 1) / ClusterSize);

    private static FatLayout Smallest(IReadOnlyList<FatNode> nodes)
    {
        // Small clusters for as long as the tables stay small.
        for (int clusterSize = SectorSize; ; clusterSize *= 2)
        {
            long needed = Needed(nodes, clusterSize);
            long most = clusterSize < LargeClusterSize ? 2 * MinimumClusters
                : clusterSize < MaximumClusterSize ? 2 * MinimumClustersIfLarge
                : MaximumClusters;
            if (needed <= most)
            {
                return new FatLayout((uint)Math.Max(needed, MinimumClusters), clusterSize);
            }
            if (clusterSize == MaximumClusterSize)
            {
                throw new NbdException(NbdError.InvalidArgument, "floppy: the files take more than the 2 TiB of a FAT32 partition");
            }
        }
    }

    private static FatLayout ForSize(IReadOnlyList<FatNode> nodes, long size)
    {
        long sectors = (size / SectorSize) - PartitionStart - Reserved;
        for (int clusterSize = MaximumClusterSize; clusterSize >= SectorSize; clusterSize /= 2)
        {
            int clusterSectors = clusterSize / SectorSize;
            // Each cluster takes 8 bytes of the tables; the tables are rounded up, so that it may be a few less.
            long clusters = Math.Min((long)((UInt128)(ulong)Math.Max(sectors, 0) * SectorSize / (ulong)(clusterSize + 8)), MaximumClusters);
            while (clusters > 0 && (2 * TableSectorsFor(clusters)) + (clusters * clusterSectors) > sectors)
            {
                clusters--;
            }
            if (clusters >= (clusterSize > LargeClusterSize ? MinimumClustersIfLarge : MinimumClusters)
                && Needed(nodes, clusterSize) <= clusters)
            {
                return new FatLayout((uint)clusters, clusterSize);
            }
        }
        throw new NbdException(
            NbdError.InvalidArgument, $"floppy: size={size} is too small: the disk takes {Smallest(nodes).Size} bytes or a few more");
    }

    private static long Needed(IReadOnlyList<FatNode> nodes, int clusterSize)
    {
        int shift = BitOperations.Log2((uint)clusterSize);
        return nodes.Sum(node => (node.Size + clusterSize - 1) >> shift);
    }

    private static long TableSectorsFor(long clusters) => (((clusters + 2) * 4) + 4095) / 4096 * 8;
}
