using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace NbdKit;

/// <summary>Parsing. Not by <see cref="Uri"/>, which takes names for paths and cleans them up.</summary>
public sealed partial record NbdUri
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    // scheme "://" authority [ "/" export ] [ "?" parameters ]
    private static NbdUri Read(string uri, bool allowLocalFiles)
    {
        foreach (char c in uri)
        {
            if (char.IsControl(c) || char.IsWhiteSpace(c) || c == '#')
            {
                throw Wrong(c == '#' ? "has a fragment; a # in a name is written as %23" : "has a character that must be escaped");
            }
        }
        int colon = uri.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
        {
            throw Wrong("has no scheme, such as nbd:");
        }
        string scheme = uri[..colon].ToLowerInvariant();
        if (scheme is not ("nbd" or "nbds" or "nbd+unix" or "nbds+unix" or "nbd+vsock" or "nbds+vsock"))
        {
            throw Wrong($"has the scheme {scheme}, which is not supported");
        }
        string rest = uri[(colon + 1)..];
        if (!rest.StartsWith("//", StringComparison.Ordinal))
        {
            throw Wrong("lacks the // behind its scheme");
        }
        rest = rest[2..];
        string query = Split(ref rest, '?') ?? "";
        string path = Split(ref rest, '/') ?? "";
        Parameters parameters = Parameters.Read(query, allowLocalFiles, scheme.EndsWith("unix", StringComparison.Ordinal));
        string authority = rest;
        string? user = null;
        if (authority.LastIndexOf('@') is >= 0 and int at)
        {
            user = Unescape(authority[..at], "user");
            authority = authority[(at + 1)..];
        }
        return new NbdUri
        {
            EndPoint = EndPointOf(scheme, authority, parameters.Socket),
            ExportName = CheckedName(Unescape(path, "export name")),
            IsTls = scheme.StartsWith("nbds", StringComparison.Ordinal),
            TlsHostName = parameters.TlsHostName,
            TlsVerifyPeer = parameters.TlsVerifyPeer,
            TlsCertificates = parameters.TlsCertificates,
            UserName = user,
        };
    }

    private static EndPoint EndPointOf(string scheme, string authority, string? socket)
    {
        if (socket is not null)
        {
            return authority.Length == 0 ? UnixEndPoint(socket) : throw Wrong("has a host and a socket");
        }
        if (scheme.EndsWith("vsock", StringComparison.Ordinal))
        {
            string cid = HostAndPort(authority, out uint vsockPort, uint.MaxValue - 1);
            return cid.Length == 0 ? new VsockEndPoint(VsockEndPoint.HostCid, vsockPort)
                : TryNumber(cid, uint.MaxValue, out uint number) ? new VsockEndPoint(number, vsockPort)
                : throw Wrong($"has {cid} where the number of a machine belongs");
        }
        string host = HostAndPort(authority, out uint port, ushort.MaxValue);
        if (host.StartsWith('['))
        {
            string inner = host[1..^1];
            return inner.Contains(':', StringComparison.Ordinal) && IPAddress.TryParse(Unescape(inner, "address"), out IPAddress? v6)
                ? new IPEndPoint(v6, (int)port)
                : throw Wrong($"has {host} where an address of IPv6 belongs");
        }
        host = Unescape(host, "host");
        return host.Length == 0 ? new DnsEndPoint("localhost", (int)port)
            : IsNumber(host[(host.LastIndexOf('.') + 1)..]) ? Ipv4(host, port)
            : IsHostName(host) ? new DnsEndPoint(host, (int)port)
            : throw Wrong("has a host that is no name of one");
    }

    // Of the ways to write an address only the usual one: the others make one address look like another.
    private static IPEndPoint Ipv4(string host, uint port)
        => IPAddress.TryParse(host, out IPAddress? address) && address.ToString() == host
            ? new IPEndPoint(address, (int)port)
            : throw Wrong("has a host that is no address in its usual form");

    // A host whose last part is a number is an address to every resolver: "127.1", "0x7f.1".
    private static bool IsNumber(string part)
        => part.Length > 0 && (part.All(char.IsAsciiDigit) || part.StartsWith("0x", StringComparison.OrdinalIgnoreCase));

    // A name that begins with a dash is an option to the first program that it is passed to.
    private static bool IsHostName(string host)
        => host.Length <= 255 && host[0] != '-' && host.All(c => char.IsLetterOrDigit(c) || c is '-' or '.' or '_');

    private static EndPoint UnixEndPoint(string path)
    {
        if (path.LastIndexOf('\0') > 0 || path.Length == 0 || path == "\0")
        {
            throw Wrong("has a socket that is no path");
        }
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (Exception e) when (e is ArgumentException or PlatformNotSupportedException)
        {
            throw new UriFormatException($"The NBD URI has a socket that is not possible on this system: {e.Message}", e);
        }
    }

    /// <summary>Splits off the port; the host keeps its brackets.</summary>
    private static string HostAndPort(string authority, out uint port, uint largest)
    {
        port = DefaultPort;
        int end = authority.StartsWith('[') ? authority.IndexOf(']', StringComparison.Ordinal) + 1 : 0;
        if (authority.StartsWith('[') && end == 0)
        {
            throw Wrong("has a bracket that is not closed");
        }
        int colon = authority.IndexOf(':', end);
        string host = colon < 0 ? authority : authority[..colon];
        if (end > 0 && host.Length != end)
        {
            throw Wrong("has more in its host than an address in brackets");
        }
        // An empty port is the default one, as in any URI.
        if (colon >= 0 && colon < authority.Length - 1 && !(TryNumber(authority[(colon + 1)..], largest, out port) && port > 0))
        {
            throw Wrong($"has a port that is no number from 1 to {largest}");
        }
        return host;
    }

    private static string CheckedName(string name)
    {
        try
        {
            Protocol.WireString.Check(name, "export name");
            return name;
        }
        catch (ArgumentException e)
        {
            throw new UriFormatException("The NBD URI names no possible export: " + e.Message, e);
        }
    }

    private static bool TryNumber(string text, uint largest, out uint number)
        => uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number <= largest;

    /// <summary>Cuts the text at a character; what follows it, or null if there is none.</summary>
    private static string? Split(ref string text, char at)
    {
        int index = text.IndexOf(at, StringComparison.Ordinal);
        if (index < 0)
        {
            return null;
        }
        string tail = text[(index + 1)..];
        text = text[..index];
        return tail;
    }

    /// <summary>Undoes the escaping; strictly, so that two names never become one.</summary>
    internal static string Unescape(string text, string what)
    {
        if (!text.Contains('%', StringComparison.Ordinal))
        {
            return text;
        }
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        int length = 0;
        for (int i = 0; i < bytes.Length; i++)
        {
            if (bytes[i] == '%')
            {
                if (i + 2 >= bytes.Length
                    || !byte.TryParse(bytes.AsSpan(i + 1, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value))
                {
                    throw Wrong($"has a % in its {what} that begins no escape");
                }
                bytes[length++] = value;
                i += 2;
            }
            else
            {
                bytes[length++] = bytes[i];
            }
        }
        try
        {
            return Strict.GetString(bytes, 0, length);
        }
        catch (DecoderFallbackException e)
        {
            throw new UriFormatException($"The NBD URI has a {what} that is not UTF-8.", e);
        }
    }

    internal static UriFormatException Wrong(string what) => new($"The NBD URI {what}.");
}
