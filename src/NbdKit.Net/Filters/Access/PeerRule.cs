using System.Globalization;
using System.IO.Enumeration;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Filters.Access;

/// <summary>One rule of the ip filter: which clients it is about.</summary>
internal sealed class PeerRule
{
    private const AddressFamily Vsock = (AddressFamily)40;

    private readonly Func<NbdConnection, bool> _matches;

    private PeerRule(string text, Func<NbdConnection, bool> matches)
    {
        Text = text;
        _matches = matches;
    }

    /// <summary>The rule as it was written.</summary>
    public string Text { get; }

    /// <summary>Whether it takes the client's certificate, which is not known before TLS.</summary>
    public bool NeedsCertificate { get; private init; }

    /// <summary>The host whose addresses are meant, or null.</summary>
    public string? Host { get; private init; }

    /// <summary>Reads a rule.</summary>
    /// <exception cref="FormatException">There is no such rule.</exception>
    public static PeerRule Parse(string text)
        => text switch
        {
            "all" or "any" => new(text, _ => true),
            "allipv4" or "anyipv4" => new(text, c => AddressOf(c)?.AddressFamily == AddressFamily.InterNetwork),
            "allipv6" or "anyipv6" => new(text, c => AddressOf(c)?.AddressFamily == AddressFamily.InterNetworkV6),
            "allunix" or "anyunix" => new(text, c => IsUnix(c.Peer)),
            "allvsock" or "anyvsock" => new(text, c => VsockOf(c.Peer) is not null),
            _ => ParseValue(text),
        };

    /// <summary>Whether the rule is about a client; of a host, that is for its addresses to say.</summary>
    public bool Matches(NbdConnection connection) => _matches(connection);

    /// <summary>The client's IP address in the form that rules have, or null if it has none.</summary>
    public static IPAddress? AddressOf(NbdConnection connection)
        => connection.Peer.EndPoint is IPEndPoint ip ? AddressRange.Normalize(ip.Address) : null;

    /// <summary>Whether enough is known of a client to judge it.</summary>
    public static bool IsKnown(NbdConnection connection)
        => AddressOf(connection) is not null || IsUnix(connection.Peer) || VsockOf(connection.Peer) is not null;

    private static PeerRule ParseValue(string text)
    {
        int colon = text.IndexOf(':');
        string value = text[(colon + 1)..];
        // An IPv6 address may begin with letters and a colon, but not with these.
        switch (colon < 0 ? "" : text[..colon])
        {
            case "pid":
                uint pid = Number(text, value, int.MaxValue);
                return new(text, c => c.Peer.ProcessId == pid);
            case "uid":
                uint uid = Number(text, value, uint.MaxValue);
                return new(text, c => c.Peer.UserId == uid);
            case "gid":
                uint gid = Number(text, value, uint.MaxValue);
                return new(text, c => c.Peer.GroupId == gid);
            case "vsock-cid":
                uint cid = Number(text, value, uint.MaxValue);
                return new(text, c => VsockOf(c.Peer)?.Cid == cid);
            case "vsock-port":
                uint port = Number(text, value, uint.MaxValue);
                return new(text, c => VsockOf(c.Peer)?.Port == port);
            case "dn":
                return Named(text, value, c => c.PeerSubject);
            case "issuer-dn":
                return Named(text, value, c => c.PeerIssuer);
            case "host":
                return Uri.CheckHostName(value) == UriHostNameType.Dns
                    ? new(text, _ => false) { Host = value }
                    : throw new FormatException($"'{text}' does not name a host.");
            case "security":
                throw new FormatException($"'{text}': security labels of clients are not supported.");
        }
        AddressRange range = AddressRange.Parse(text)
            ?? throw new FormatException($"'{text}' is neither a kind of client nor an address.");
        return new(text, c => AddressOf(c) is { } address && range.Contains(address));
    }

    private static PeerRule Named(string text, string pattern, Func<NbdConnection, string?> name)
        => pattern.Length > 0
            ? new(text, c => name(c) is { } actual && FileSystemName.MatchesSimpleExpression(pattern, actual, ignoreCase: false))
            {
                NeedsCertificate = true,
            }
            : throw new FormatException($"'{text}' names nobody.");

    private static uint Number(string text, string value, uint maximum)
        => uint.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out uint number) && number <= maximum
            ? number
            : throw new FormatException($"'{text}': '{value}' is not a number from 0 to {maximum}.");

    private static bool IsUnix(NbdPeer peer) => peer.ProcessId is not null || peer.EndPoint is UnixDomainSocketEndPoint;

    // struct sockaddr_vm { family 16, reserved 16, port 32, cid 32 }, in the byte order of the machine
    private static (uint Cid, uint Port)? VsockOf(NbdPeer peer)
    {
        if (peer.EndPoint?.AddressFamily != Vsock)
        {
            return null;
        }
        SocketAddress address = peer.EndPoint.Serialize();
        ReadOnlySpan<byte> bytes = address.Buffer.Span;
        return address.Size >= 12 ? (BitConverter.ToUInt32(bytes[8..]), BitConverter.ToUInt32(bytes[4..])) : null;
    }
}
