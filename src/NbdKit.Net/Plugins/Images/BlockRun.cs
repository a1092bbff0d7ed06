namespace NbdKit.Plugins.Images;

/// <summary>A range of a disk that is one hole, or one range of the file of its image.</summary>
/// <param name="IsHole">Whether it reads as zeroes and takes no space.</param>
/// <param name="Length">Its length in bytes.</param>
/// <param name="Place">Its first byte in the file.</param>
internal readonly record struct BlockRun(bool IsHole, long Length, long Place)
{
    /// <summary>Whether what follows it in the disk continues it.</summary>
    public bool IsContinuedBy(BlockRun next) => next.IsHole == IsHole && (IsHole || next.Place == Place + Length);
}
