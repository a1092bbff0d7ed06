namespace NbdKit.Server;

/// <summary>Ends a connection, with its one reason. Everything that is not this is a failed request, or a defect of ours.</summary>
internal sealed class ConnectionEndedException(NbdDisconnectReason reason, string message, Exception? inner = null)
    : Exception(message, inner)
{
    public NbdDisconnectReason Reason { get; } = reason;
}
