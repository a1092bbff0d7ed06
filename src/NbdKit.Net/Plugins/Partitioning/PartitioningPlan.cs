namespace NbdKit.Plugins.Partitioning;

/// <summary>Where everything on a partitioned disk is. All offsets and sizes are in bytes.</summary>
/// <remarks>
/// The table comes first, then each partition at its alignment. A logical partition has its extended boot record in the sector
/// after the partition before it. The backup of a GPT is at the very end.
/// </remarks>
internal sealed class PartitioningPlan
{
    public const int EntrySize = 128;

    // What everybody makes, and the step by which it grows.
    private const int EntryStep = 128;

    private PartitioningPlan(bool isGpt, IReadOnlyList<long> sizes, long sectorSize)
    {
        IsGpt = isGpt;
        Sizes = sizes;
        SectorSize = (int)sectorSize;
        Starts = new long[sizes.Count];
        EntryCount = (sizes.Count + EntryStep - 1) / EntryStep * EntryStep;
        ArraySectors = ((EntryCount * EntrySize) + SectorSize - 1) / SectorSize;
    }

    public bool IsGpt { get; }

    public int SectorSize { get; }

    /// <summary>The size of each partition's chain; the partition has whole sectors.</summary>
    public IReadOnlyList<long> Sizes { get; }

    public long[] Starts { get; }

    /// <summary>The first of the logical partitions; the number of partitions if there are none.</summary>
    public int FirstLogical => !IsGpt && Sizes.Count > 4 ? 3 : Sizes.Count;

    /// <summary>Entries in a GPT, and the sectors that they take.</summary>
    public int EntryCount { get; }

    public int ArraySectors { get; }

    /// <summary>Size of the disk.</summary>
    public long Size { get; private set; }

    /// <exception cref="NbdException">There can be no such disk.</exception>
    public static PartitioningPlan Of(
        PartitioningType type, IReadOnlyList<PartitioningMember> members, IReadOnlyList<long> sizes, long sectorSize, long minimumBlock)
    {
        for (int i = 0; i < sizes.Count; i++)
        {
            if (sizes[i] == 0)
            {
                throw Refused($"member {i + 1} is empty, and there are no partitions of no bytes");
            }
        }
        bool isGpt = type == PartitioningType.Gpt || (type == PartitioningType.Auto && sizes.Count > 4);
        PartitioningPlan plan = Placed(isGpt, members, sizes, sectorSize, minimumBlock);
        if (!isGpt && plan.Size / sectorSize > uint.MaxValue)
        {
            plan = type == PartitioningType.Auto
                ? Placed(true, members, sizes, sectorSize, minimumBlock)
                : throw Refused($"an MBR cannot describe a disk of {plan.Size} bytes: use a GPT");
        }
        return plan;
    }

    /// <summary>The sectors before an offset, which is where a sector begins.</summary>
    public long Sector(long offset) => offset / SectorSize;

    /// <summary>The sectors that a number of bytes needs.</summary>
    public long Sectors(long bytes) => (bytes / SectorSize) + (bytes % SectorSize == 0 ? 0 : 1);

    /// <summary>Where the extended boot record of a logical partition is.</summary>
    public long RecordOffset(int member) => Starts[member - 1] + (Sectors(Sizes[member - 1]) * SectorSize);

    private static PartitioningPlan Placed(
        bool isGpt, IReadOnlyList<PartitioningMember> members, IReadOnlyList<long> sizes, long sectorSize, long minimumBlock)
    {
        var plan = new PartitioningPlan(isGpt, sizes, sectorSize);
        // 128 bits: neither sizes nor alignments are bounded by what came before them.
        Int128 at = isGpt ? (2 + plan.ArraySectors) * sectorSize : sectorSize;
        for (int i = 0; i < sizes.Count; i++)
        {
            if (i >= plan.FirstLogical)
            {
                at += sectorSize;
            }
            at = Fit(RoundUp(at, members[i].Alignment));
            if (at % sectorSize != 0 || at % minimumBlock != 0)
            {
                throw Refused(
                    $"partition {i + 1} would begin at {at}, which is not a multiple of the sector size {sectorSize} or the block size " +
                    $"{minimumBlock}: give it a larger alignment");
            }
            plan.Starts[i] = (long)at;
            at = Fit(RoundUp(at + sizes[i], sectorSize));
        }
        at += isGpt ? (1 + plan.ArraySectors) * sectorSize : 0;
        // The end of the disk is for members that work in larger blocks to reach.
        plan.Size = (long)Fit(RoundUp(at, Math.Max(sectorSize, minimumBlock)));
        return plan;
    }

    private static Int128 RoundUp(Int128 value, long unit) => (value + unit - 1) / unit * unit;

    private static Int128 Fit(Int128 offset)
        => offset <= long.MaxValue ? offset : throw Refused("the disk would be more than 2^63-1 bytes");

    private static NbdException Refused(string why) => new(NbdError.InvalidArgument, $"partitioning: {why}");
}
