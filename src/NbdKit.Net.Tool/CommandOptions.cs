using System.Net.Sockets;

namespace NbdKit.Tool;

/// <summary>The command line, parsed and checked.</summary>
internal sealed record CommandOptions
{
    /// <summary>The value of --unix that asks for a private path.</summary>
    public const string PrivateUnixSocket = "-";

    public CommandMode Mode { get; init; } = CommandMode.Serve;

    /// <summary>The plugin's name, or null if none was given; never null to serve.</summary>
    public string? Plugin { get; init; }

    /// <summary>The first is nearest the client.</summary>
    public IReadOnlyList<string> Filters { get; init; } = [];

    /// <summary>Names and values; a bare argument has the name "".</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Parameters { get; init; } = [];

    public string? UnixSocket { get; init; }

    /// <summary>A port number or the name of a service.</summary>
    public string? Port { get; init; }

    /// <summary>An address or the name of a host.</summary>
    public string? Address { get; init; }

    /// <summary>Whether to listen on a vsock instead of TCP.</summary>
    public bool Vsock { get; init; }

    /// <summary>The only family to listen on, or null for both.</summary>
    public AddressFamily? Family { get; init; }

    /// <summary>Whether to serve one client on the standard input and output.</summary>
    public bool Single { get; init; }

    public bool ReadOnly { get; init; }

    public string ExportName { get; init; } = "";

    public string? PidFile { get; init; }

    public int? Threads { get; init; }

    public bool Verbose { get; init; }

    /// <summary>Where the log goes: "stderr", "null" or a file.</summary>
    public string Log { get; init; } = LogFactory.ToStandardError;

    /// <summary>What messages begin with.</summary>
    public string Name { get; init; } = Command.ProgramName;

    /// <summary>The command to run while serving, or null.</summary>
    public string? Run { get; init; }

    public bool PrintUri { get; init; }

    public bool ExitWithParent { get; init; }

    /// <summary>The handshake flags that may be offered.</summary>
    public long HandshakeMask { get; init; } = -1;

    public bool StructuredReplies { get; init; } = true;

    public bool MetaContexts { get; init; } = true;

    public TimeSpan? HandshakeTimeout { get; init; }

    public bool Oldstyle { get; init; }

    public bool KeepAlive { get; init; }

    /// <summary>What --tls said, or null if it was not given: then TLS is on if there are certificates.</summary>
    public TlsMode? Tls { get; init; }

    /// <summary>The directory of --tls-certificates, or null to look in the usual places.</summary>
    public string? TlsCertificates { get; init; }

    public bool TlsVerifyPeer { get; init; }

    /// <summary>Whether any option says where to listen.</summary>
    public bool HasTransport => UnixSocket is not null || IsTcp || Vsock || Single;

    /// <summary>Whether an option names a port or an address of TCP, or the port of a vsock.</summary>
    public bool IsTcp => Port is not null || Address is not null;
}
