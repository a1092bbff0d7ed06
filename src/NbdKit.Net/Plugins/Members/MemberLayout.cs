namespace NbdKit.Plugins.Members;

/// <summary>How the bytes of a disk lie on its members. On each member, a range of the disk is one range.</summary>
internal abstract class MemberLayout
{
    /// <summary>Size of the disk in bytes.</summary>
    public abstract long Size { get; }

    /// <summary>Where a byte of the disk is, and how many bytes after it are next to it on the same member.</summary>
    /// <param name="offset">From 0 up to the size, exclusive.</param>
    public abstract MemberPiece Locate(long offset);

    /// <summary>The number of bytes of a member that come before an offset of the disk.</summary>
    /// <param name="member">The member.</param>
    /// <param name="offset">From 0 up to the size, inclusive.</param>
    public abstract long Before(int member, long offset);
}
