namespace NbdKit;

/// <summary>
/// Fails one request, or one open of an export, with the error number that the client is told. It never ends the connection.
/// </summary>
/// <remarks>
/// A plugin or filter throws it when it knows what went wrong. Any other exception that leaves a plugin is answered with
/// <see cref="NbdError.IoError"/>, apart from the few that the table in the README maps to a better number.
/// </remarks>
public sealed class NbdException : Exception
{
    /// <summary>Creates the failure of a request.</summary>
    /// <param name="error">The number that the client is told.</param>
    /// <param name="message">What went wrong. It is logged, and sent to clients that negotiated structured replies.</param>
    /// <param name="innerException">The cause, for the log only.</param>
    public NbdException(NbdError error, string message, Exception? innerException = null)
        : base(message, innerException) => Error = error;

    /// <summary>The number that the client is told.</summary>
    public NbdError Error { get; }
}
