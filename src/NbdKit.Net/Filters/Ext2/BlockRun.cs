namespace NbdKit.Filters.Ext2;

/// <summary>Blocks of a file that follow each other on the disk, or that are not there.</summary>
/// <param name="Count">How many blocks, at least 1.</param>
/// <param name="Start">
/// The first of them on the disk; 0 for a hole and for blocks that were reserved but never written. Both read as zeroes.
/// </param>
internal readonly record struct BlockRun(long Count, long Start)
{
    /// <summary>Whether there is content.</summary>
    public bool IsWritten => Start != 0;
}
