namespace NbdKit.Plugins;

/// <summary>Where a sparse disk has data: runs of whole blocks, made from a seed.</summary>
internal sealed class DataRuns
{
    private const int MostBorders = 1 << 27;
    private const int BlocksPerCheck = 1 << 20;
    private const long LargestDisk = 1L << 48;

    // In order: where each run of data begins and where it ends.
    private readonly long[] _borders;

    private DataRuns(long[] borders) => _borders = borders;

    /// <summary>No data at all.</summary>
    public static DataRuns None { get; } = new([]);

    /// <summary>
    /// Makes the runs. After each block of data its run ends with the probability that gives it the average length, and after
    /// each block of a hole one begins with that which gives the percentage.
    /// </summary>
    /// <param name="size">Size of the disk.</param>
    /// <param name="block">Size of a block.</param>
    /// <param name="percent">How much is data, from 0 to 100.</param>
    /// <param name="runLength">The average length of a run.</param>
    /// <param name="seed">What they are made from.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The disk is too large, or there would be more runs than are kept.</exception>
    public static DataRuns Make(
        long size, int block, double percent, long runLength, uint seed, CancellationToken cancellationToken)
    {
        if (percent is 0 or 100)
        {
            return percent == 0 ? None : new DataRuns([0, long.MaxValue]);
        }
        if (size > LargestDisk)
        {
            throw new NbdException(
                NbdError.InvalidArgument, $"sparse-random: size {size}: more than 256 TiB would take minutes to make runs for");
        }
        double share = percent / 100;
        double ends = 1 / ((double)runLength / block);
        double begins = share * ends / (1 - share);
        (double endsBelow, double beginsBelow) = (ends * ulong.MaxValue, begins * ulong.MaxValue);
        long blocks = (size / block) + (size % block == 0 ? 0 : 1);
        var random = new Xoshiro(seed);
        var borders = new List<long>();
        bool isData = false;
        for (long i = 1; i < blocks; i++)
        {
            if (i % BlocksPerCheck == 0)
            {
                cancellationToken.ThrowIfCancellationRequested();
            }
            if (random.Next() <= (isData ? endsBelow : beginsBelow))
            {
                if (borders.Count == MostBorders)
                {
                    throw new NbdException(
                        NbdError.OutOfMemory, "sparse-random: more than 2^26 runs of data: take a smaller size or longer runs");
                }
                borders.Add(i * block);
                isData = !isData;
            }
        }
        return new DataRuns([.. borders]);
    }

    /// <summary>Whether there is data at an offset, and where that changes next; 2^63-1 if never.</summary>
    public (bool IsData, long End) At(long offset)
    {
        int index = Array.BinarySearch(_borders, offset);
        index = index >= 0 ? index + 1 : ~index;
        return (index % 2 == 1, index < _borders.Length ? _borders[index] : long.MaxValue);
    }
}
