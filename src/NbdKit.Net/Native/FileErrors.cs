using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>
/// What a failed operation on a file is to the client. Messages name no path of the host, since clients may get to see them;
/// the inner exception may.
/// </summary>
internal static class FileErrors
{
    private const int WindowsHandleDiskFull = unchecked((int)0x80070027);
    private const int WindowsDiskFull = unchecked((int)0x80070070);

    /// <summary>The failure of an operation that set <c>errno</c>.</summary>
    public static NbdException FromErrno(int error, string operation) => new(
        Number(error), $"{operation}: {Marshal.GetPInvokeErrorMessage(error)}");

    /// <summary>Whether <see cref="FromException"/> knows what a failure of the framework's file operations means.</summary>
    public static bool IsFileFailure(Exception exception)
        => exception is IOException or UnauthorizedAccessException or ArgumentOutOfRangeException;

    /// <summary>The failure of one of the framework's file operations.</summary>
    public static NbdException FromException(Exception exception, string operation) => exception switch
    {
        FileNotFoundException or DirectoryNotFoundException =>
            new(NbdError.InvalidArgument, $"{operation}: no such file", exception),
        UnauthorizedAccessException => new(NbdError.PermissionDenied, $"{operation}: permission denied", exception),
        // What the framework makes of EFBIG; the offsets that it could be about were checked.
        ArgumentOutOfRangeException => new(NbdError.NoSpace, $"{operation}: the file would become too large", exception),
        _ => new(Number(exception), operation + " failed", exception),
    };

    private static NbdError Number(Exception exception) => exception.HResult switch
    {
        WindowsHandleDiskFull or WindowsDiskFull => NbdError.NoSpace,
        int error when OperatingSystem.IsLinux() => Number(error),
        // macOS: the numbers below 35 are those of Linux, but a quota is number 69.
        69 when OperatingSystem.IsMacOS() => NbdError.NoSpace,
        int error and < 35 when OperatingSystem.IsMacOS() => Number(error),
        _ => NbdError.IoError,
    };

    private static NbdError Number(int error) => error switch
    {
        Errno.NoSpace or Errno.QuotaExceeded or Errno.TooLarge => NbdError.NoSpace,
        Errno.NotPermitted or Errno.AccessDenied or Errno.ReadOnlyFileSystem => NbdError.PermissionDenied,
        Errno.OutOfMemory => NbdError.OutOfMemory,
        Errno.NoEntry or Errno.NotDirectory or Errno.Loop => NbdError.InvalidArgument,
        _ => NbdError.IoError,
    };
}
