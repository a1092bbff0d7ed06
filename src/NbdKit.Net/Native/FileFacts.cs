using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>The part of <c>struct statx</c> that is used here. Unlike <c>struct stat</c> it is the same on every machine.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal readonly struct FileFacts
{
    private const int TypeMask = 0xF000;
    private const int RegularType = 0x8000;
    private const int BlockType = 0x6000;
    private const int DirectoryType = 0x4000;
    private const int LinkType = 0xA000;

    [FieldOffset(28)]
    private readonly ushort _mode;

    [FieldOffset(32)]
    private readonly ulong _inode;

    [FieldOffset(136)]
    private readonly uint _deviceMajor;

    [FieldOffset(140)]
    private readonly uint _deviceMinor;

    public bool IsRegular => (_mode & TypeMask) == RegularType;

    public bool IsBlockDevice => (_mode & TypeMask) == BlockType;

    public bool IsDirectory => (_mode & TypeMask) == DirectoryType;

    public bool IsLink => (_mode & TypeMask) == LinkType;

    /// <summary>Whether both were asked of one and the same file.</summary>
    public bool IsSameFile(in FileFacts other)
        => _inode == other._inode && _deviceMajor == other._deviceMajor && _deviceMinor == other._deviceMinor;
}
