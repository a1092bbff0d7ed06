namespace NbdKit;

/// <summary>
/// A client could not connect, or its connection has ended, or the server refused an option of the handshake. What fails one
/// request of an open export alone is an <see cref="NbdException"/>.
/// </summary>
/// <remarks>
/// A cancelled call is no failure of this kind: it throws <see cref="OperationCanceledException"/>. What comes from the server is
/// in the message only with its control characters made visible.
/// </remarks>
public sealed class NbdClientException : IOException
{
    /// <summary>Creates the failure of a connection.</summary>
    /// <param name="error">The kind of failure.</param>
    /// <param name="message">What exactly happened, for people.</param>
    /// <param name="innerException">The cause, or null.</param>
    public NbdClientException(NbdClientError error, string message, Exception? innerException = null)
        : base(message, innerException) => Error = error;

    /// <summary>The kind of failure.</summary>
    public NbdClientError Error { get; }

    /// <summary>
    /// Whether a write, trim or zero that failed with this may have been carried out all the same, in whole or in part: it was
    /// sent, and no answer came. False for what changes nothing, and for what was never sent.
    /// </summary>
    public bool IsOutcomeUnknown { get; internal init; }
}
