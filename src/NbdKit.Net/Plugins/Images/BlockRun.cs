namespace NbdKit.Plugins.Images;

/// <summary>A range of a disk that is one hole, or one range of the file of its image or of the disk of its parent.</summary>
/// <param name="IsHole">Whether it reads as zeroes and takes no space.</param>
/// <param name="Length">Its length in bytes.</param>
/// <param name="Place">Its first byte in the file, or in the parent.</param>
/// <param name="IsInParent">Whether it is in the parent. What is beyond the end of that is a hole.</param>
internal readonly record struct BlockRun(bool IsHole, long Length, long Place, bool IsInParent = false)
{
    /// <summary>Whether what follows it in the disk continues it.</summary>
    public bool IsContinuedBy(BlockRun next) => next.IsHole == IsHole && next.IsInParent == IsInParent && (IsHole || next.Place == Place + Length);
}
