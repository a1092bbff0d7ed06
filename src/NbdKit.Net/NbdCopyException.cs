namespace NbdKit;

/// <summary>Ends a copy: says which side failed and where. The first failure of a copy is the one that is thrown.</summary>
public sealed class NbdCopyException : IOException
{
    /// <summary>Creates the failure of a copy.</summary>
    /// <param name="fault">What failed.</param>
    /// <param name="offset">First byte of the range that could not be copied, or 0 if it is not a matter of one range.</param>
    /// <param name="message">What went wrong, with the offset.</param>
    /// <param name="innerException">The cause.</param>
    public NbdCopyException(NbdCopyFault fault, long offset, string message, Exception? innerException = null)
        : base(message, innerException)
    {
        Fault = fault;
        Offset = offset;
    }

    /// <summary>What failed.</summary>
    public NbdCopyFault Fault { get; }

    /// <summary>
    /// First byte of the range that could not be copied; for <see cref="NbdCopyFault.Mismatch"/> the first byte that differs,
    /// or -1 if only the hashes are known to differ.
    /// </summary>
    public long Offset { get; }

    /// <summary>The error number that the side answered with, or null if it was none of the protocol's.</summary>
    public NbdError? Error => (InnerException as NbdException)?.Error;
}
