namespace NbdKit;

/// <summary>
/// The error numbers of the NBD protocol: the only ones that can travel to a client ("Error values" in the protocol text).
/// </summary>
public enum NbdError
{
    /// <summary>Operation not permitted: a write, trim or zero on a read-only export (EPERM, 1).</summary>
    PermissionDenied = 1,

    /// <summary>Input or output failed; what any fault without a better number becomes (EIO, 5).</summary>
    IoError = 5,

    /// <summary>Not enough memory to carry out the request (ENOMEM, 12).</summary>
    OutOfMemory = 12,

    /// <summary>The request made no sense for this export (EINVAL, 22).</summary>
    InvalidArgument = 22,

    /// <summary>No space left, or a write beyond the end of the export (ENOSPC, 28).</summary>
    NoSpace = 28,

    /// <summary>The value is too large: only for reads that must not be fragmented (EOVERFLOW, 75).</summary>
    Overflow = 75,

    /// <summary>Not supported: only the answer to a fast zero that would not be fast (ENOTSUP, 95).</summary>
    NotSupported = 95,

    /// <summary>The server is stopping, or this client was asked to leave (ESHUTDOWN, 108).</summary>
    Shutdown = 108,
}
