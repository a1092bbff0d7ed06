using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Buffers;

internal sealed partial class SparseFile
{
    /// <summary>Opens an existing file or block device. May block.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="readOnly">
    /// Whether to open it read-only. That is also what happens if it may only be read: see <see cref="CanWrite"/>.
    /// </param>
    /// <param name="followLinks">Whether the last part of the path may be a symbolic link.</param>
    /// <param name="hint">How the file will be accessed: random, sequential or neither.</param>
    /// <exception cref="NbdException">
    /// There is no such file, it may not be read, or it is neither a regular file nor a block device.
    /// </exception>
    public static SparseFile Open(string path, bool readOnly, bool followLinks, FileOptions hint)
        => Open(path, readOnly, followLinks, hint, LinuxFile.IsAvailable);

    /// <summary>As above, with the choice of the system calls to use.</summary>
    public static SparseFile Open(string path, bool readOnly, bool followLinks, FileOptions hint, bool native)
    {
        bool canWrite = !readOnly;
        SafeFileHandle handle = native
            ? OpenLinux(path, ref canWrite, followLinks, hint)
            : OpenPortable(path, ref canWrite, followLinks, hint);
        try
        {
            return new SparseFile(handle, canWrite, native);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Whether there is a regular file or, on Linux, a block device at a path. May block.</summary>
    public static bool IsServable(string path, bool followLinks)
    {
        if (LinuxFile.IsAvailable)
        {
            return LinuxFile.Stat(path, followLinks, out FileFacts facts) == 0 && (facts.IsRegular || facts.IsBlockDevice);
        }
        return File.Exists(path) && (followLinks || new FileInfo(path).LinkTarget is null);
    }

    /// <summary>
    /// Whether no symbolic link is on the way from a directory to the file, which was opened by that path. True where the system
    /// cannot tell. May block.
    /// </summary>
    public bool IsReachedFrom(string directory, string path)
    {
        if (!LinuxFile.IsAvailable || !Directory.Exists(LinuxFile.DescriptorFolder))
        {
            return true;
        }
        using SafeFileHandle? above = LinuxFile.Open(directory, write: false, nonBlocking: true, out _);
        // The directory itself may be reached over links.
        return above is not null
            && LinuxFile.PathOf(above) is { } real
            && LinuxFile.PathOf(Handle) == Path.TrimEndingDirectorySeparator(real) + path[Path.TrimEndingDirectorySeparator(directory).Length..];
    }

    /// <summary>Creates a file that has no name, reads as zeroes and takes no space until it is written to.</summary>
    /// <param name="directory">Where its data is kept.</param>
    /// <param name="size">Its size in bytes.</param>
    /// <exception cref="NbdException">It cannot be created.</exception>
    public static SparseFile CreateTemporary(string directory, long size)
    {
        string path = Path.Combine(directory, "nbdkit-" + Path.GetRandomFileName());
        try
        {
            SafeFileHandle handle = CreateFile(path);
            try
            {
                if (!OperatingSystem.IsWindows())
                {
                    // Gone with the process, however that ends.
                    File.Delete(path);
                }
                RandomAccess.SetLength(handle, size);
                return new SparseFile(handle, canWrite: true, LinuxFile.IsAvailable);
            }
            catch
            {
                handle.Dispose();
                throw;
            }
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "cannot create a temporary file");
        }
    }

    /// <summary>Makes the file longer; what is added reads as zeroes. One caller at a time.</summary>
    /// <exception cref="NbdException">The file system takes no file of that size.</exception>
    public void Grow(long size)
    {
        try
        {
            RandomAccess.SetLength(Handle, size);
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "cannot make a temporary file longer");
        }
        Size = size;
    }

    private static SafeFileHandle CreateFile(string path)
    {
        if (LinuxFile.IsAvailable)
        {
            return LinuxFile.Create(path, out int error) ?? throw FileErrors.FromErrno(error, "cannot create a temporary file");
        }
        FileOptions options = OperatingSystem.IsWindows()
            ? FileOptions.DeleteOnClose | FileOptions.Asynchronous
            : FileOptions.None;
        return File.OpenHandle(
            path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete, options);
    }

    private static SafeFileHandle OpenLinux(string path, ref bool canWrite, bool followLinks, FileOptions hint)
    {
        // Asked before it is opened, since opening some devices does something and opening a FIFO waits.
        if (LinuxFile.Stat(path, followLinks, out FileFacts facts) is int error and not 0)
        {
            throw FileErrors.FromErrno(error, "cannot open the file");
        }
        RequireDisk(facts);
        SafeFileHandle? handle = LinuxFile.Open(path, canWrite, nonBlocking: !followLinks, out error);
        if (handle is null && canWrite && error is Errno.AccessDenied or Errno.NotPermitted or Errno.ReadOnlyFileSystem
            or Errno.TextBusy)
        {
            canWrite = false;
            handle = LinuxFile.Open(path, write: false, nonBlocking: !followLinks, out error);
        }
        if (handle is null)
        {
            throw FileErrors.FromErrno(error, "cannot open the file");
        }
        // A link that was put in the file's place meanwhile leads to another file.
        if (!followLinks && (LinuxFile.Stat(handle, out FileFacts opened) != 0 || !opened.IsSameFile(facts)))
        {
            handle.Dispose();
            throw new NbdException(NbdError.IoError, "the file was replaced while it was opened");
        }
        Advise(handle, hint);
        return handle;
    }

    private static void Advise(SafeFileHandle handle, FileOptions hint)
    {
        int advice = (hint & FileOptions.RandomAccess) != 0 ? LinuxFile.AdviceRandom
            : (hint & FileOptions.SequentialScan) != 0 ? LinuxFile.AdviceSequential
            : LinuxFile.AdviceNormal;
        if (advice != LinuxFile.AdviceNormal)
        {
            LinuxFile.Advise(handle, 0, 0, advice);
        }
    }

    private static SafeFileHandle OpenPortable(string path, ref bool canWrite, bool followLinks, FileOptions hint)
    {
        try
        {
            if (!followLinks && new FileInfo(path).LinkTarget is not null)
            {
                throw new NbdException(NbdError.PermissionDenied, "the file is a symbolic link");
            }
            if (canWrite)
            {
                try
                {
                    return OpenHandle(path, FileAccess.ReadWrite, hint);
                }
                catch (Exception e) when (
                    FileErrors.FromException(e, "").Error == NbdError.PermissionDenied && !Directory.Exists(path))
                {
                    canWrite = false;
                }
            }
            return OpenHandle(path, FileAccess.Read, hint);
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "cannot open the file");
        }
    }

    private static SafeFileHandle OpenHandle(string path, FileAccess access, FileOptions hint) => File.OpenHandle(
        path, FileMode.Open, access, FileShare.ReadWrite | FileShare.Delete, hint | FileOptions.Asynchronous);

    private static void RequireDisk(in FileFacts facts)
    {
        if (facts.IsLink)
        {
            throw new NbdException(NbdError.PermissionDenied, "the file is a symbolic link");
        }
        if (!facts.IsRegular && !facts.IsBlockDevice)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                facts.IsDirectory ? "the file is a directory" : "the file is neither a regular file nor a block device");
        }
    }
}
