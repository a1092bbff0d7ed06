namespace NbdKit.Plugins.Images;

/// <summary>Where the bytes of a disk are in the file of its image. Safe for use by several threads.</summary>
internal interface IBlockMap
{
    /// <summary>Finds the run that a range of the disk begins with, no longer than the range.</summary>
    ValueTask<BlockRun> FindAsync(long offset, long length, CancellationToken cancellationToken);
}
