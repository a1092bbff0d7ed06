using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Buffers;

internal sealed partial class SparseFile
{
    private SafeFileHandle? _lender;

    /// <summary>Uses a file that somebody else has opened, and keeps it open until this is disposed of.</summary>
    /// <param name="handle">The handle, which stays its owner's.</param>
    /// <param name="readOnly">Whether not to write, even if the handle could.</param>
    /// <param name="hint">How the file will be accessed: random, sequential or neither.</param>
    /// <param name="loss">What was lost through the handle.</param>
    /// <exception cref="NbdException">
    /// The handle is closed, cannot be read, appends, or is neither of a regular file nor of a block device.
    /// </exception>
    public static SparseFile Share(SafeFileHandle handle, bool readOnly, FileOptions hint, FileLoss loss)
    {
        bool isHeld = false;
        try
        {
            handle.DangerousAddRef(ref isHeld);
        }
        catch (ObjectDisposedException e)
        {
            throw new NbdException(NbdError.IoError, "the file was closed by its owner", e);
        }
        // With the owner's handle calls would fail as soon as the owner has closed it, though it is still open.
        var own = new SafeFileHandle(handle.DangerousGetHandle(), ownsHandle: false);
        try
        {
            bool canWrite = !LinuxFile.IsAvailable || CanWriteTo(own);
            var file = new SparseFile(own, canWrite && !readOnly, LinuxFile.IsAvailable, loss) { _lender = handle };
            if (LinuxFile.IsAvailable)
            {
                Advise(own, hint);
            }
            return file;
        }
        catch
        {
            own.Dispose();
            handle.DangerousRelease();
            throw;
        }
    }

    private static bool CanWriteTo(SafeFileHandle handle)
    {
        if (LinuxFile.AccessOf(handle, out HandleAccess access) is int error and not 0)
        {
            throw FileErrors.FromErrno(error, "cannot ask how the file was opened");
        }
        return access switch
        {
            HandleAccess.Read => false,
            HandleAccess.ReadWrite => true,
            // Linux appends what is written anywhere.
            HandleAccess.Append => throw new NbdException(NbdError.InvalidArgument, "the file was opened for appending"),
            _ => throw new NbdException(NbdError.InvalidArgument, "the file was not opened for reading"),
        };
    }
}
