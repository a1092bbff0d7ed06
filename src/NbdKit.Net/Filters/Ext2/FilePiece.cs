namespace NbdKit.Filters.Ext2;

/// <summary>A range of a file that is one range of the disk, or that is not there and reads as zeroes.</summary>
/// <param name="Length">Number of bytes.</param>
/// <param name="Place">The first byte on the disk; 0 if it is not there.</param>
internal readonly record struct FilePiece(long Length, long Place)
{
    public bool IsWritten => Place != 0;
}
