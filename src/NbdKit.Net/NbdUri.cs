using System.Net;
using System.Net.Sockets;
using System.Text;
using NbdKit.Protocol;

namespace NbdKit;

/// <summary>
/// Where an export is: what an NBD URI says, such as <c>nbd://example.com:10809/disk</c> or
/// <c>nbds+unix:///?socket=/run/nbd.sock</c> (the "NBD URI specification", doc/uri.md beside the protocol text).
/// </summary>
/// <remarks>
/// The schemes are <c>nbd</c>, <c>nbd+unix</c> and <c>nbd+vsock</c>, and <c>nbds</c>, <c>nbds+unix</c> and <c>nbds+vsock</c>,
/// which require TLS. Nothing is ever started because of a URI: <c>nbd+ssh</c> is refused.
/// </remarks>
public sealed partial record NbdUri
{
    /// <summary>The port of NBD, over TCP and over vsock.</summary>
    public const int DefaultPort = 10809;

    /// <summary>
    /// Where the server listens: a <see cref="DnsEndPoint"/>, <see cref="IPEndPoint"/>,
    /// <see cref="UnixDomainSocketEndPoint"/> or <see cref="VsockEndPoint"/>.
    /// </summary>
    /// <exception cref="ArgumentException">The value is of another type.</exception>
    public required EndPoint EndPoint
    {
        get;
        init => field = value is DnsEndPoint or IPEndPoint or UnixDomainSocketEndPoint or VsockEndPoint
            ? value
            : throw new ArgumentException($"A URI cannot name {value}.", nameof(value));
    }

    /// <summary>The export; "" by default, for the server's default export.</summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string ExportName
    {
        get;
        init
        {
            WireString.Check(value, "export name");
            field = value;
        }
    } = "";

    /// <summary>Whether TLS is required. False by default: then it is up to the client.</summary>
    public bool IsTls { get; init; }

    /// <summary>
    /// The name that the server's certificate must carry (<c>tls-hostname</c>), or null for the host that is connected to.
    /// </summary>
    public string? TlsHostName { get; init; }

    /// <summary>Whether the server has to prove who it is (<c>tls-verify-peer</c>). True by default.</summary>
    public bool TlsVerifyPeer { get; init; } = true;

    /// <summary>
    /// A directory with <c>ca-cert.pem</c>, and with <c>client-cert.pem</c> and <c>client-key.pem</c> if the client has to prove
    /// who it is (<c>tls-certificates</c>, of libnbd), or null. Whoever writes the URI can point it at any file, so this is
    /// only parsed where that is allowed.
    /// </summary>
    public string? TlsCertificates { get; init; }

    /// <summary>
    /// The user in the authority, or null. It is meant for pre-shared keys, which .NET does not have: nothing here uses it.
    /// </summary>
    public string? UserName { get; init; }

    /// <summary>Parses a URI.</summary>
    /// <param name="uri">The URI.</param>
    /// <param name="allowLocalFiles">
    /// Whether parameters may name local files (<see cref="TlsCertificates"/>). False by default: for URIs that others wrote.
    /// </param>
    /// <exception cref="UriFormatException">It is no NBD URI, or has a part that would be ignored; the message says why.</exception>
    public static NbdUri Parse(string uri, bool allowLocalFiles = false)
    {
        ArgumentNullException.ThrowIfNull(uri);
        return Read(uri, allowLocalFiles);
    }

    /// <inheritdoc cref="Parse(string, bool)"/>
    public static NbdUri Parse(Uri uri, bool allowLocalFiles = false)
    {
        ArgumentNullException.ThrowIfNull(uri);
        return Read(uri.OriginalString, allowLocalFiles);
    }

    /// <summary>Parses a URI, if it is one.</summary>
    /// <param name="uri">The URI.</param>
    /// <param name="result">What it says; null if it is no NBD URI.</param>
    /// <returns>Whether it is an NBD URI, all of which is understood. Parameters that name local files are not.</returns>
    public static bool TryParse(string? uri, [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out NbdUri? result)
    {
        result = null;
        try
        {
            result = uri is null ? null : Read(uri, allowLocalFiles: false);
        }
        catch (UriFormatException)
        {
            // What is wrong is for Parse to say.
        }
        return result is not null;
    }

    /// <summary>The URI, as others can parse it.</summary>
    public override string ToString()
    {
        (string kind, string authority) = EndPoint switch
        {
            DnsEndPoint dns => ("", dns.Host + Port(dns.Port)),
            IPEndPoint ip => ("", Host(ip.Address) + Port(ip.Port)),
            VsockEndPoint vsock => ("+vsock", vsock.Cid + Port(vsock.Port)),
            _ => ("+unix", ""),
        };
        var text = new StringBuilder(IsTls ? "nbds" : "nbd").Append(kind).Append("://");
        if (UserName is not null)
        {
            text.Append(Uri.EscapeDataString(UserName)).Append('@');
        }
        text.Append(authority).Append('/').Append(Uri.EscapeDataString(ExportName));
        char separator = '?';
        Add("socket", EndPoint is UnixDomainSocketEndPoint unix ? SocketPath(unix) : null);
        Add("tls-hostname", TlsHostName);
        Add("tls-verify-peer", TlsVerifyPeer ? null : "0");
        Add("tls-certificates", TlsCertificates);
        return text.ToString();

        void Add(string name, string? value)
        {
            if (value is not null)
            {
                string escaped = Uri.EscapeDataString(value).Replace("%2F", "/", StringComparison.Ordinal);
                text.Append(separator).Append(name).Append('=').Append(escaped);
                separator = '&';
            }
        }
    }

    /// <summary>The URI, as a <see cref="Uri"/>. An export may have a name like "..", which is left alone.</summary>
    /// <exception cref="UriFormatException">
    /// It is one that <see cref="Uri"/> cannot hold: of a vsock with a port above 65,535, or with a user and no host.
    /// </exception>
    // Such a name would be taken for a step of a path otherwise. All is escaped already.
    public Uri ToUri() => new(ToString(), new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true });

    /// <summary>Whether an endpoint can be in a <see cref="Uri"/>: not every port of a vsock can.</summary>
    internal static bool CanName(EndPoint endPoint) => endPoint is not VsockEndPoint { Port: > ushort.MaxValue };

    /// <summary>The URI of an endpoint that a server listens on.</summary>
    internal static Uri For(EndPoint endPoint, string exportName, bool isTls = false)
    {
        // A wildcard address is no address to connect to.
        EndPoint reachable = endPoint switch
        {
            IPEndPoint ip when ip.Address.Equals(IPAddress.Any) || ip.Address.Equals(IPAddress.IPv6Any)
                => new DnsEndPoint("localhost", ip.Port),
            VsockEndPoint { Cid: VsockEndPoint.AnyCid } vsock => new VsockEndPoint(VsockEndPoint.LocalCid, vsock.Port),
            _ => endPoint,
        };
        return new NbdUri { EndPoint = reachable, ExportName = exportName, IsTls = isTls }.ToUri();
    }

    private static string Port(long port) => port == DefaultPort ? "" : $":{port}";

    // The scope of an address is escaped like all else that is no part of the syntax.
    private static string Host(IPAddress address) => address.AddressFamily == AddressFamily.InterNetworkV6
        ? $"[{address.ToString().Replace("%", "%25", StringComparison.Ordinal)}]"
        : address.ToString();

    // An abstract name begins with NUL, which is shown as "@" otherwise.
    private static string SocketPath(UnixDomainSocketEndPoint endPoint)
    {
        string path = endPoint.ToString();
        return path.StartsWith('@') && Serialized(endPoint) == 0 ? "\0" + path[1..] : path;
    }

    private static byte Serialized(UnixDomainSocketEndPoint endPoint) => endPoint.Serialize()[2];
}
