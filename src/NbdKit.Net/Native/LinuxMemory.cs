using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>Anonymous memory of the kernel: mmap(2) and madvise(2). Only use it where <see cref="IsAvailable"/>.</summary>
internal static class LinuxMemory
{
    private const int ReadWrite = 3;
    private const int PrivateAnonymous = 0x22;
    private const int DontNeed = 4;
    private const int HugePage = 14;
    private const int Collapse = 25;

    public static bool IsAvailable { get; } = OperatingSystem.IsLinux() && Environment.Is64BitProcess;

    /// <summary>Maps memory that is zero; 0 if there is none.</summary>
    /// <param name="length">Number of bytes.</param>
    /// <param name="alignment">A power of two, at least the kernel's page size.</param>
    public static nint Map(nint length, nint alignment)
    {
        nint whole = length + alignment;
        nint start = mmap(0, whole, ReadWrite, PrivateAnonymous, -1, 0);
        if (start == -1)
        {
            return 0;
        }
        nint aligned = (start + alignment - 1) & ~(alignment - 1);
        UnmapIfAny(start, aligned - start);
        // To the kernel a length that ends inside a page ends with the page.
        nint end = (aligned + length + Environment.SystemPageSize - 1) & ~(nint)(Environment.SystemPageSize - 1);
        UnmapIfAny(end, start + whole - end);
        return aligned;
    }

    public static void Unmap(nint start, nint length) => _ = munmap(start, length);

    /// <summary>Gives whole pages back: they are zero when they are used again.</summary>
    public static void GiveBack(nint start, nint length) => _ = madvise(start, length, DontNeed);

    /// <summary>Asks for large pages for memory that is used from now on. Only a wish: what became of it is of no interest.</summary>
    public static void UseLargePages(nint start, nint length) => _ = madvise(start, length, HugePage);

    /// <summary>Moves memory into large pages, at once if the kernel can (since 6.1) and else in its own time.</summary>
    public static void MoveIntoLargePages(nint start, nint length)
    {
        if (madvise(start, length, HugePage) == 0)
        {
            _ = madvise(start, length, Collapse);
        }
    }

    private static void UnmapIfAny(nint start, nint length)
    {
        if (length > 0)
        {
            Unmap(start, length);
        }
    }

    [DllImport("libc")]
    private static extern nint mmap(nint address, nint length, int protection, int flags, int descriptor, nint offset);

    [DllImport("libc")]
    private static extern int munmap(nint address, nint length);

    [DllImport("libc")]
    private static extern int madvise(nint address, nint length, int advice);
}
