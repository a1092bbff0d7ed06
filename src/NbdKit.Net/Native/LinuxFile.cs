using System.Buffers;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Native;

/// <summary>
/// What Linux can do with files and block devices beyond the framework. Methods return the error number, 0 for success;
/// only use them where <see cref="IsAvailable"/>.
/// </summary>
internal static partial class LinuxFile
{
    public const int AdviceNormal = 0;
    public const int AdviceRandom = 1;
    public const int AdviceSequential = 2;
    public const int AdviceWillNeed = 3;
    public const int AdviceDontNeed = 4;

    private const int ReadOnly = 0;
    private const int ReadWrite = 2;
    private const int CreateNew = 0xC0;
    private const int OwnerOnly = 0x180;
    private const int NoControllingTerminal = 0x100;
    private const int NonBlocking = 0x800;
    private const int CloseOnExec = 0x80000;

    private const int CurrentDirectory = -100;
    private const int NoFollow = 0x100;
    private const int EmptyPath = 0x1000;
    private const uint BasicFacts = 0x7FF;

    private const int FromEnd = 2;
    private const int ToData = 3;
    private const int ToHole = 4;

    private const int NoWait = 8;

    // The C library has no function for this call. Its number is the same on all processors.
    private const nint CacheStat = 451;

    private const int KeepSize = 1;
    private const int Punch = 2;
    private const int Zero = 16;

    private const uint WaitBefore = 1;
    private const uint StartWriting = 2;
    private const uint WaitAfter = 4;

    private const int SetOpenFileLock = 37;
    private const short WriteLock = 1;

    private const int BlockReadOnly = 0x125E;
    private const int BlockLogicalSize = 0x1268;
    private const int BlockDiscard = 0x1277;
    private const int BlockPhysicalSize = 0x127B;
    private const int BlockRotational = 0x127E;
    private const int BlockZeroOut = 0x127F;

    /// <summary>Where the system shows what descriptors are of, unless that is not mounted.</summary>
    public const string DescriptorFolder = "/proc/self/fd";

    public static bool IsAvailable { get; } = OperatingSystem.IsLinux() && Environment.Is64BitProcess;

    /// <summary>Opens an existing file, or returns null and the error.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="write">Whether to open it for writing too.</param>
    /// <param name="nonBlocking">Not to wait for the other end of a FIFO, or for whoever holds a lease on the file.</param>
    /// <param name="error">The error number.</param>
    public static SafeFileHandle? Open(string path, bool write, bool nonBlocking, out int error)
        => Open(path, (write ? ReadWrite : ReadOnly) | NoControllingTerminal | (nonBlocking ? NonBlocking : 0), out error);

    /// <summary>The path of an open file or directory as it is now, without links; null if it cannot be told.</summary>
    public static string? PathOf(SafeFileHandle handle)
        => new FileInfo(string.Create(CultureInfo.InvariantCulture, $"{DescriptorFolder}/{handle.DangerousGetHandle()}")).LinkTarget;

    /// <summary>Creates a file that only its owner may open, or returns null and the error.</summary>
    public static SafeFileHandle? Create(string path, out int error) => Open(path, ReadWrite | CreateNew, out error);

    private static SafeFileHandle? Open(string path, int flags, out int error)
    {
        byte[] text = Encoding.UTF8.GetBytes(path + '\0');
        int file;
        do
        {
            file = OpenFile(ref text[0], flags | CloseOnExec, OwnerOnly);
            error = file < 0 ? Marshal.GetLastPInvokeError() : 0;
        }
        while (error == Errno.Interrupted);
        return file < 0 ? null : new SafeFileHandle(file, ownsHandle: true);
    }

    public static int Stat(string path, bool followLinks, out FileFacts facts)
    {
        byte[] text = Encoding.UTF8.GetBytes(path + '\0');
        return Error(StatPath(CurrentDirectory, ref text[0], followLinks ? 0 : NoFollow, BasicFacts, out facts));
    }

    public static int Stat(SafeFileHandle file, out FileFacts facts)
    {
        byte nothing = 0;
        return Error(StatHandle(file, ref nothing, EmptyPath, BasicFacts, out facts));
    }

    /// <summary>The end of the file, of a block device too.</summary>
    public static int Size(SafeFileHandle file, out long size) => Seek(file, 0, FromEnd, out size);

    /// <summary>The first data at or after an offset. <see cref="Errno.NoSuchAddress"/> if there is none.</summary>
    public static int NextData(SafeFileHandle file, long offset, out long data) => Seek(file, offset, ToData, out data);

    /// <summary>The first hole at or after an offset; the end of the file counts as one.</summary>
    public static int NextHole(SafeFileHandle file, long offset, out long hole) => Seek(file, offset, ToHole, out hole);

    /// <summary>Reads what can be read without waiting for a device.</summary>
    /// <param name="file">The file.</param>
    /// <param name="buffer">The memory to fill, not empty.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="count">The number of bytes that were read.</param>
    public static int ReadNow(SafeFileHandle file, Memory<byte> buffer, long offset, out int count)
    {
        using MemoryHandle pin = buffer.Pin();
        nint result = ReadVector(file, Vector(buffer.Span), 1, offset, NoWait);
        count = (int)Math.Max(0, result);
        return Error(result);
    }

    /// <summary>Writes what can be written without waiting for a device, a lock or memory.</summary>
    /// <param name="file">The file.</param>
    /// <param name="data">The bytes, not empty.</param>
    /// <param name="offset">First byte to write.</param>
    /// <param name="count">The number of bytes that were written.</param>
    public static int WriteNow(SafeFileHandle file, ReadOnlyMemory<byte> data, long offset, out int count)
    {
        using MemoryHandle pin = data.Pin();
        nint result = WriteVector(file, Vector(data.Span), 1, offset, NoWait);
        count = (int)Math.Max(0, result);
        return Error(result);
    }

    /// <summary>
    /// Whether the page cache holds the whole of a range, as far as can be told (since Linux 6.5). It also holds what lies
    /// between the end of a file and that of the page.
    /// </summary>
    public static bool IsCached(SafeFileHandle file, long offset, long length)
    {
        Span<ulong> counts = stackalloc ulong[5];
        var range = new DeviceRange(offset, length);
        nint result = AskCache(CacheStat, file, in range, ref MemoryMarshal.GetReference(counts), 0);
        long page = Environment.SystemPageSize;
        return result == 0 && counts[0] >= (ulong)(((offset + length - 1) / page) - (offset / page) + 1);
    }

    public static int PunchHole(SafeFileHandle file, long offset, long length)
        => Allocate(file, KeepSize | Punch, offset, length);

    public static int ZeroRange(SafeFileHandle file, long offset, long length)
        => Allocate(file, KeepSize | Zero, offset, length);

    public static int AllocateRange(SafeFileHandle file, long offset, long length)
        => Allocate(file, KeepSize, offset, length);

    /// <summary>Brings the data to stable storage, with as much of the metadata as is needed to find it.</summary>
    public static int Flush(SafeFileHandle file)
    {
        int error;
        do
        {
            error = Error(SyncData(file));
        }
        while (error == Errno.Interrupted);
        return error;
    }

    public static int StartWriteback(SafeFileHandle file, long offset, long length)
        => Error(SyncRange(file, offset, length, StartWriting));

    public static int WaitForWriteback(SafeFileHandle file, long offset, long length)
        => Error(SyncRange(file, offset, length, WaitBefore | StartWriting | WaitAfter));

    /// <summary>A hint; that it cannot be heeded is of no interest.</summary>
    public static void Advise(SafeFileHandle file, long offset, long length, int advice)
        => _ = AdviseFile(file, offset, length, advice);

    public static int Discard(SafeFileHandle device, long offset, long length)
        => Error(ChangeDevice(device, BlockDiscard, new DeviceRange(offset, length)));

    public static int ZeroOut(SafeFileHandle device, long offset, long length)
        => Error(ChangeDevice(device, BlockZeroOut, new DeviceRange(offset, length)));

    /// <summary>The size of the sectors that a block device is addressed in; 0 if it is not known.</summary>
    public static int LogicalSectorSize(SafeFileHandle device) => Ask(device, BlockLogicalSize);

    /// <summary>The size of the sectors that a block device writes at once; 0 if it is not known.</summary>
    public static int PhysicalSectorSize(SafeFileHandle device) => Ask(device, BlockPhysicalSize);

    /// <summary>Whether a block device was set to be read-only, which opening it for writing does not tell.</summary>
    public static bool IsReadOnly(SafeFileHandle device) => Ask(device, BlockReadOnly) != 0;

    public static bool IsRotational(SafeFileHandle device)
        // The answer is 16 bits wide.
        => (Ask(device, BlockRotational) & 0xFFFF) != 0;

    /// <summary>
    /// Locks a file, against other openers of it in this process too, until the handle is closed. <see cref="Errno.TryAgain"/> if
    /// somebody else has it.
    /// </summary>
    public static int TryLock(SafeFileHandle file, bool exclusive)
    {
        var all = new FileLock { Type = exclusive ? WriteLock : (short)0 };
        return Error(ControlFile(file, SetOpenFileLock, ref all));
    }

    private static int Seek(SafeFileHandle file, long offset, int whence, out long position)
    {
        position = SeekFile(file, offset, whence);
        return position < 0 ? Marshal.GetLastPInvokeError() : 0;
    }

    private static int Allocate(SafeFileHandle file, int mode, long offset, long length)
    {
        int error;
        do
        {
            error = Error(AllocateFile(file, mode, offset, length));
        }
        while (error == Errno.Interrupted);
        return error;
    }

    private static int Ask(SafeFileHandle device, int request)
    {
        int answer = 0;
        return AskDevice(device, (nuint)request, ref answer) < 0 ? 0 : answer;
    }

    // The address of memory that the caller has pinned, without unsafe code: its distance from the null reference.
    private static IoVector Vector(ReadOnlySpan<byte> pinned)
        => new(Unsafe.ByteOffset(ref Unsafe.NullRef<byte>(), ref MemoryMarshal.GetReference(pinned)), pinned.Length);

    private static int Error(nint result) => result < 0 ? Marshal.GetLastPInvokeError() : 0;
}
