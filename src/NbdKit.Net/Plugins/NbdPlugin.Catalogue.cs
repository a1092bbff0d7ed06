using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Plugins;

// The parameters of nbdkit's nbd plugin.
public sealed partial class NbdPlugin
{
    private static readonly string[] Ways = ["uri", "socket", "hostname", "vsock", "command", "socket-fd"];

    /// <summary>The plugin in the catalogue: <c>nbd</c>, with the magic parameter <c>uri</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "nbd",
        "a proxy for another NBD server",
        [
            new NbdParameter("uri", "the NBD URI of the other server; this or another way to reach it is required"),
            new NbdParameter("socket", "the Unix domain socket of the other server"),
            new NbdParameter("hostname", "the host of the other server"),
            new NbdParameter("port", "its port, or the vsock port (default: 10809)"),
            new NbdParameter("vsock", "the context identifier of the virtual machine, or host, of the other server"),
            new NbdParameter("command", "the server to run, which takes over a listening socket as from systemd; implies shared=true"),
            new NbdParameter("arg", "an argument of the command") { IsRepeatable = true },
            new NbdParameter("command-stdio", "true if the command serves its standard input and output (default: false)"),
            new NbdParameter("socket-fd", "the descriptor of a socket that is connected to the other server; implies shared=true"),
            new NbdParameter("export", "the export of the other server, if there is no URI (default: its default export)"),
            new NbdParameter("dynamic-export", "true to give clients the export that they name (default: false)"),
            new NbdParameter("retry", "how often to try to connect again after a second (default: 0)"),
            new NbdParameter("shared", "true for one connection for all clients, opened at start (default: false)"),
            new NbdParameter("connections", "connections for each client, if the export is multi-conn (default: 1)"),
            new NbdParameter("tls", "off, on (if the server offers it) or require (default: off, or on with another tls parameter)"),
            new NbdParameter("tls-certificates", "the directory with ca-cert.pem, client-cert.pem and client-key.pem"),
            new NbdParameter("tls-verify", "false to take any certificate of the server (default: true)"),
        ],
        Create)
    {
        MagicParameter = "uri",
    };

    private static NbdPlugin Create(NbdParameters parameters)
    {
        string[] given = [.. Ways.Where(way => parameters.Text(way) is not null)];
        if (given.Length != 1)
        {
            throw new ArgumentException(
                $"nbd: exactly one of the parameters {string.Join(", ", Ways.Select(way => way + "="))} is required"
                + (given.Length > 1 ? $", and there are {string.Join(" and ", given)}." : "."));
        }
        if (parameters.Text("port") is not null && given[0] is not ("hostname" or "vsock"))
        {
            throw new ArgumentException("nbd: port= goes with hostname= or vsock= only.");
        }
        if (given[0] != "command" && (parameters.Text("arg") ?? parameters.Text("command-stdio")) is not null)
        {
            throw new ArgumentException("nbd: arg= and command-stdio= go with command= only.");
        }
        bool alone = given[0] is "command" or "socket-fd";
        bool dynamic = parameters.Boolean("dynamic-export") ?? false;
        bool shared = parameters.Boolean("shared") ?? alone;
        if (parameters.Text("export") is not null && (dynamic || given[0] == "uri"))
        {
            throw new ArgumentException("nbd: export= goes neither with uri=, which names the export, nor with dynamic-export=true.");
        }
        if (dynamic && shared)
        {
            throw new ArgumentException("nbd: dynamic-export=true does not go with shared=true, command= or socket-fd=.");
        }
        if (alone && !shared)
        {
            throw new ArgumentException($"nbd: {given[0]}= is a single connection or server, so shared=false does not go with it.");
        }
        NbdUri target = Secured(parameters, given[0]);
        NbdClientOptions options = target.Apply(new NbdClientOptions()) with { Tls = TlsOf(parameters, target) };
        var plugin = new NbdPlugin
        {
            EndPoint = alone ? null : target.EndPoint,
            Command = given[0] == "command" ? [parameters.Required("command"), .. parameters.Texts("arg")] : [],
            CommandUsesStandardStreams = parameters.Boolean("command-stdio") ?? false,
            Connect = given[0] == "socket-fd" ? Once(parameters.Integer("socket-fd")!.Value, options) : null,
            Options = options,
            DynamicExport = dynamic,
            Shared = shared,
            Retry = parameters.Integer("retry") ?? 0,
            Connections = parameters.Integer("connections") is { } count
                ? count > 0 ? count : throw new ArgumentException("nbd: connections= must be 1 or more.")
                : 1,
        };
        return plugin;
    }

    /// <summary>Where to connect to, and with which certificates.</summary>
    private static NbdUri Secured(NbdParameters parameters, string way)
    {
        try
        {
            NbdUri target = way == "uri"
                ? NbdUri.Parse(parameters.Required("uri"), allowLocalFiles: true)
                : new NbdUri { EndPoint = EndPointOf(parameters, way), ExportName = parameters.Text("export") ?? "" };
            return target with
            {
                TlsVerifyPeer = parameters.Boolean("tls-verify") ?? target.TlsVerifyPeer,
                TlsCertificates = parameters.Text("tls-certificates") ?? target.TlsCertificates,
            };
        }
        catch (UriFormatException e)
        {
            throw new ArgumentException($"nbd: {way}={parameters.Text(way)}: {e.Message}", e);
        }
    }

    private static EndPoint EndPointOf(NbdParameters parameters, string way)
    {
        switch (way)
        {
            case "socket":
                return new UnixDomainSocketEndPoint(Path.GetFullPath(parameters.Required("socket")));
            case "vsock":
                return new VsockEndPoint(
                    (uint)Number(parameters, "vsock", 0, uint.MaxValue), (uint)Number(parameters, "port", 0, uint.MaxValue));
            case "hostname":
                string host = parameters.Required("hostname");
                int port = (int)Number(parameters, "port", 1, 65_535);
                return IPAddress.TryParse(host, out IPAddress? address) ? new IPEndPoint(address, port) : new DnsEndPoint(host, port);
            default:
                // Nothing is connected to: the address only stands where a URI has one.
                return new UnixDomainSocketEndPoint("/");
        }
    }

    private static long Number(NbdParameters parameters, string name, long minimum, long maximum)
    {
        if (parameters.Text(name) is not { } text)
        {
            return NbdUri.DefaultPort;
        }
        try
        {
            return NbdParse.Integer(text, minimum, maximum);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"nbd: {name}={text}: {e.Message}", name, e);
        }
    }

    private static NbdTlsPolicy TlsOf(NbdParameters parameters, NbdUri target)
    {
        bool other = parameters.Text("tls-certificates") is not null || parameters.Text("tls-verify") is not null;
        NbdTlsPolicy? given = parameters.OneOf(
            "tls", ("off", NbdTlsPolicy.Off), ("on", NbdTlsPolicy.Allow), ("require", NbdTlsPolicy.Require));
        return target.IsTls ? NbdTlsPolicy.Require : given ?? (other ? NbdTlsPolicy.Allow : NbdTlsPolicy.Off);
    }

    private static Func<string, CancellationToken, Task<NbdClient>> Once(int descriptor, NbdClientOptions options)
    {
        int used = 0;
        return (_, cancellationToken) =>
        {
            if (Interlocked.Exchange(ref used, 1) != 0)
            {
                throw new NbdClientException(
                    NbdClientError.ConnectFailed,
                    string.Create(CultureInfo.InvariantCulture, $"The socket {descriptor} was used before, and it is only one."));
            }
            Socket socket;
            try
            {
                socket = new Socket(new SafeSocketHandle(descriptor, ownsHandle: true));
            }
            catch (SocketException e)
            {
                throw new NbdClientException(NbdClientError.ConnectFailed, $"socket-fd={descriptor} is no socket.", e);
            }
            return NbdClient.ConnectAsync(socket, options, cancellationToken);
        };
    }
}
