using System.Net;
using System.Net.Sockets;

namespace NbdKit.Server;

/// <summary>Builds NBD URIs (the "NBD URI specification"): nbd://host:port/export, nbd+unix:///export?socket=path.</summary>
internal static class NbdUri
{
    private const int DefaultPort = 10809;

    public static Uri For(EndPoint endPoint, string exportName, bool tls = false)
    {
        string scheme = tls ? "nbds" : "nbd";
        string name = Uri.EscapeDataString(exportName);
        if (endPoint is not IPEndPoint ip)
        {
            string path = ((UnixDomainSocketEndPoint)endPoint).ToString();
            return Verbatim($"{scheme}+unix:///{name}?socket={Uri.EscapeDataString(path).Replace("%2F", "/", StringComparison.Ordinal)}");
        }
        // A wildcard address is no address to connect to.
        bool any = ip.Address.Equals(IPAddress.Any) || ip.Address.Equals(IPAddress.IPv6Any);
        string host = any
            ? "localhost"
            : ip.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{ip.Address}]" : ip.Address.ToString();
        string port = ip.Port == DefaultPort ? "" : $":{ip.Port}";
        return Verbatim($"{scheme}://{host}{port}/{name}");
    }

    // An export may be named "." or "..", which would be taken for steps of a path otherwise. All is escaped already.
    private static Uri Verbatim(string uri)
        => new(uri, new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true });
}
