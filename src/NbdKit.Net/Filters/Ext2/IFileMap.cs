namespace NbdKit.Filters.Ext2;

/// <summary>Where the blocks of a file are. Safe for use by several threads.</summary>
internal interface IFileMap
{
    /// <summary>The number of blocks that the map can describe.</summary>
    long BlockLimit { get; }

    /// <summary>Finds a block, and how many follow it.</summary>
    /// <param name="block">The block of the file, from 0, below the limit.</param>
    /// <param name="count">How many are of interest, at least 1.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>
    /// At most <paramref name="count"/> blocks; there may be more of the same kind after them. They are inside the file
    /// system.
    /// </returns>
    ValueTask<BlockRun> FindAsync(long block, long count, CancellationToken cancellationToken);
}
