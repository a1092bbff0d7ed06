namespace NbdKit;

/// <summary>Why a client could not connect, or why its connection ended. One reason for one connection: the first.</summary>
public enum NbdClientError
{
    /// <summary>Nobody could be reached: no such host or socket, refused, or no route.</summary>
    ConnectFailed,

    /// <summary>The connection was lost, or the server closed it where it should have answered.</summary>
    ConnectionLost,

    /// <summary>The server broke the protocol. What it sends after that means nothing.</summary>
    ProtocolViolation,

    /// <summary>The server sent more than a client has to take: too many replies, or too large ones.</summary>
    LimitExceeded,

    /// <summary>The time of the connect, the handshake or a request was over.</summary>
    Timeout,

    /// <summary>The server offers no TLS, and the client was told to require it.</summary>
    TlsUnavailable,

    /// <summary>The server requires TLS, and the client was told to do without; or it hides an export behind that answer.</summary>
    TlsRequired,

    /// <summary>TLS was begun and failed: above all, the server could not prove who it is.</summary>
    TlsFailed,

    /// <summary>The server has no export of that name, or does not open it now.</summary>
    ExportUnknown,

    /// <summary>The server does not allow what was asked for, or took it for nonsense.</summary>
    Refused,

    /// <summary>The server cannot do what was asked for, or does it in a way that this client cannot.</summary>
    Unsupported,

    /// <summary>The server is stopping.</summary>
    ServerShutdown,
}
