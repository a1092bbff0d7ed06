namespace NbdKit;

/// <summary>Why a connection ended. The first reason counts.</summary>
public enum NbdDisconnectReason
{
    /// <summary>The client said goodbye (NBD_CMD_DISC or NBD_OPT_ABORT).</summary>
    ClientDone,

    /// <summary>The client closed the connection between two messages, without a goodbye.</summary>
    ClientGone,

    /// <summary>The transport failed, or ended inside a message.</summary>
    ConnectionLost,

    /// <summary>The client broke the protocol in a way that leaves no next message.</summary>
    ProtocolViolation,

    /// <summary>A layer refused the client in its preconnect call.</summary>
    Refused,

    /// <summary>An export could not be opened for a client that gave the server no way to say so.</summary>
    ExportUnavailable,

    /// <summary>The client exceeded a limit of the server.</summary>
    LimitExceeded,

    /// <summary>The client stopped in its handshake, inside a message, or did not take its replies.</summary>
    Timeout,

    /// <summary>A layer asked for it with <see cref="NbdConnection.Disconnect"/>.</summary>
    Disconnected,

    /// <summary>The server stopped.</summary>
    ServerStopped,

    /// <summary>The TLS handshake failed, or there was no certificate for it.</summary>
    TlsFailed,

    /// <summary>
    /// The client asked in plain text for what is served over TLS only, and gave the server no way to say so.
    /// </summary>
    TlsRequired,

    /// <summary>
    /// The handshake of the host's own failed, or settled more than the export has (<see cref="NbdTransmission"/>).
    /// </summary>
    HandshakeFailed,

    /// <summary>The server itself failed. This is a defect worth a report.</summary>
    Faulted,
}
