using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>
/// What a client is told when a layer fails: the one place where an exception becomes an error number and a message.
/// </summary>
internal static class ErrorMapping
{
    /// <summary>The fault that an exception of a layer stands for.</summary>
    public static RequestFault ForException(Exception exception, CancellationToken aborted) => exception switch
    {
        NbdException e => new(e.Error, e.Message),
        OperationCanceledException when aborted.IsCancellationRequested => new(NbdError.Shutdown, "the connection is ending"),
        IOException e when IsDiskFull(e.HResult) => new(NbdError.NoSpace, "no space left"),
        UnauthorizedAccessException => new(NbdError.PermissionDenied, "permission denied"),
        NotSupportedException => new(NbdError.NotSupported, "not supported"),
        OutOfMemoryException => new(NbdError.OutOfMemory, "out of memory"),
        // What else goes wrong inside the host is the host's business: the log has it, the client gets no details.
        _ => new(NbdError.IoError, "input/output error"),
    };

    /// <summary>Whether the exception is an answer rather than an accident, and needs no stack in the log.</summary>
    public static bool IsExpected(Exception exception, CancellationToken aborted)
        => exception is NbdException || (exception is OperationCanceledException && aborted.IsCancellationRequested);

    /// <summary>The number that may travel in the reply to this request ("Error values").</summary>
    public static uint ToWire(NbdError error, in RequestHeader header) => error switch
    {
        // Only for a fast zero, and only for a read that must not be fragmented.
        NbdError.NotSupported when (header.Flags & CommandFlags.FastZero) == 0 => (uint)NbdError.InvalidArgument,
        NbdError.Overflow when (header.Flags & CommandFlags.DontFragment) == 0 => (uint)NbdError.InvalidArgument,
        NbdError.PermissionDenied or NbdError.IoError or NbdError.OutOfMemory or NbdError.InvalidArgument or NbdError.NoSpace
            or NbdError.Overflow or NbdError.NotSupported or NbdError.Shutdown => (uint)error,
        _ => (uint)NbdError.IoError,
    };

    // Windows: ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL. Unix: ENOSPC, EFBIG, EDQUOT of Linux and of macOS.
    private static bool IsDiskFull(int hresult)
        => hresult is unchecked((int)0x80070070) or unchecked((int)0x80070027) or 28 or 27 or 122 or 69;
}
