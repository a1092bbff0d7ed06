using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Native;

// Offsets are off_t, which is 64 bits wide under these names only in 64-bit processes: IsAvailable sees to that. The names with
// "64" in them would do for 32 bits, but musl no longer exports them.
internal static partial class LinuxFile
{
    [DllImport("libc", EntryPoint = "open", SetLastError = true)]
    private static extern int OpenFile(ref byte path, int flags, int mode);

    [DllImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static extern int StatPath(int directory, ref byte path, int flags, uint mask, out FileFacts facts);

    [DllImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static extern int StatHandle(SafeFileHandle file, ref byte path, int flags, uint mask, out FileFacts facts);

    [DllImport("libc", EntryPoint = "lseek", SetLastError = true)]
    private static extern long SeekFile(SafeFileHandle file, long offset, int whence);

    [DllImport("libc", EntryPoint = "preadv2", SetLastError = true)]
    private static extern nint ReadVector(SafeFileHandle file, in IoVector vector, int count, long offset, int flags);

    [DllImport("libc", EntryPoint = "pwritev2", SetLastError = true)]
    private static extern nint WriteVector(SafeFileHandle file, in IoVector vector, int count, long offset, int flags);

    [DllImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static extern nint AskCache(nint number, SafeFileHandle file, in DeviceRange range, ref ulong counts, uint flags);

    [DllImport("libc", EntryPoint = "fallocate", SetLastError = true)]
    private static extern int AllocateFile(SafeFileHandle file, int mode, long offset, long length);

    [DllImport("libc", EntryPoint = "fdatasync", SetLastError = true)]
    private static extern int SyncData(SafeFileHandle file);

    [DllImport("libc", EntryPoint = "sync_file_range", SetLastError = true)]
    private static extern int SyncRange(SafeFileHandle file, long offset, long length, uint flags);

    [DllImport("libc", EntryPoint = "posix_fadvise")]
    private static extern int AdviseFile(SafeFileHandle file, long offset, long length, int advice);

    [DllImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static extern int AskDevice(SafeFileHandle file, nuint request, ref int answer);

    [DllImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static extern int ChangeDevice(SafeFileHandle file, nuint request, in DeviceRange range);

    [DllImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static extern int ControlFile(SafeFileHandle file, int command, ref FileLock argument);

    // struct flock: type (16), where the start counts from (16), start (64), length (64, 0 to the end), process (32).
    [StructLayout(LayoutKind.Sequential)]
    private struct FileLock
    {
        public short Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Process;
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly struct DeviceRange(long offset, long length)
    {
        private readonly long _offset = offset;
        private readonly long _length = length;
    }
}
