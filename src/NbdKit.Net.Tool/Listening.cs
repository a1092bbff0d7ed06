using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tool;

/// <summary>Turns the options that say where to listen into endpoints.</summary>
internal static class Listening
{
    private const string DefaultPort = "10809";

    // VMADDR_PORT_ANY
    private const uint AnyVsockPort = uint.MaxValue;

    /// <summary>The endpoints of the options.</summary>
    /// <param name="options">The options.</param>
    /// <param name="privateSocket">What stands for <c>-U -</c>, or null if the options do not ask for it.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="CommandException">There is no such address or service, or the path is too long.</exception>
    public static async ValueTask<IReadOnlyList<EndPoint>> EndPointsAsync(
        CommandOptions options, PrivateSocket? privateSocket, CancellationToken cancellationToken)
    {
        if (options.Single)
        {
            return [];
        }
        if (options.UnixSocket is { } path)
        {
            return [UnixEndPoint(privateSocket?.Path ?? Path.GetFullPath(path))];
        }
        if (options.Vsock)
        {
            return [new VsockEndPoint(VsockEndPoint.AnyCid, VsockPort(options.Port ?? DefaultPort))];
        }
        int port = PortNumber(options.Port ?? DefaultPort);
        List<IPAddress> addresses = await AddressesAsync(options.Address, options.Family, cancellationToken)
            .ConfigureAwait(false);
        if (port == 0 && addresses.Count > 1)
        {
            port = FreePort(addresses);
        }
        return addresses.ConvertAll(address => (EndPoint)new IPEndPoint(address, port));
    }

    /// <summary>The number of a port that is given as a number or as the name of a TCP service.</summary>
    /// <exception cref="CommandException">It is neither.</exception>
    public static int PortNumber(string port)
    {
        if (ushort.TryParse(port, out ushort number))
        {
            return number;
        }
        if (!char.IsAsciiDigit(port[0]) && File.Exists("/etc/services"))
        {
            foreach (string line in File.ReadLines("/etc/services"))
            {
                // name  port/protocol  alias ...  # comment
                string[] words = line.Split('#')[0].Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
                if (words.Length >= 2 && words[1].EndsWith("/tcp", StringComparison.Ordinal)
                    && (words[0] == port || Array.IndexOf(words, port, 2) >= 0)
                    && ushort.TryParse(words[1].AsSpan(0, words[1].Length - 4), out number))
                {
                    return number;
                }
            }
        }
        throw new CommandException($"'{port}' is not a port from 0 to 65535 and not a known TCP service");
    }

    /// <summary>The number of a port of a vsock, of which there are more; 0 picks a free one.</summary>
    private static uint VsockPort(string port)
    {
        if (!uint.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out uint number))
        {
            return (uint)PortNumber(port);
        }
        return number switch
        {
            0 => AnyVsockPort,
            AnyVsockPort => throw new CommandException($"'{port}' is not a port from 0 to {AnyVsockPort - 1}"),
            _ => number,
        };
    }

    private static UnixDomainSocketEndPoint UnixEndPoint(string path)
    {
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentOutOfRangeException e)
        {
            throw new CommandException($"the path of the Unix socket is too long for this system: {path}", e);
        }
    }

    private static async ValueTask<List<IPAddress>> AddressesAsync(
        string? host, AddressFamily? family, CancellationToken cancellationToken)
    {
        IPAddress[] candidates;
        if (host is null)
        {
            candidates = [IPAddress.Any, IPAddress.IPv6Any];
        }
        else if (IPAddress.TryParse(host, out IPAddress? literal))
        {
            candidates = [literal];
        }
        else
        {
            try
            {
                candidates = await Dns.GetHostAddressesAsync(host, cancellationToken).ConfigureAwait(false);
            }
            catch (SocketException e)
            {
                throw new CommandException($"'{host}' is not an address and not a known host: {e.Message}", e);
            }
        }
        var addresses = new List<IPAddress>();
        foreach (IPAddress address in candidates)
        {
            bool wanted = family is null || family == address.AddressFamily;
            // Only an address that was asked for by name is tried on a system that cannot have it.
            bool possible = host is not null
                || address.AddressFamily == AddressFamily.InterNetwork
                || Socket.OSSupportsIPv6;
            if (wanted && possible && !addresses.Contains(address))
            {
                addresses.Add(address);
            }
        }
        return addresses.Count > 0
            ? addresses
            : throw new CommandException(
                $"there is no {(family == AddressFamily.InterNetwork ? "IPv4" : "IPv6")} address to listen on");
    }

    /// <summary>
    /// A port that is free on every one of several addresses. Left to itself the system picks another for each, and a
    /// client that connects to a host by name would have to know which address it gets.
    /// </summary>
    private static int FreePort(List<IPAddress> addresses)
    {
        for (int attempt = 0; ; attempt++)
        {
            var sockets = new List<Socket>(addresses.Count);
            int port = 0;
            try
            {
                foreach (IPAddress address in addresses)
                {
                    var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
                    sockets.Add(socket);
                    socket.Bind(new IPEndPoint(address, port));
                    port = ((IPEndPoint)socket.LocalEndPoint!).Port;
                }
                return port;
            }
            catch (SocketException e)
                when (e.SocketErrorCode == SocketError.AddressAlreadyInUse && port != 0 && attempt < 20)
            {
                // The port that one address had to give is taken on another; ask for the next.
            }
            catch (SocketException e)
            {
                throw new CommandException($"cannot find a free port: {e.Message}", e);
            }
            finally
            {
                sockets.ForEach(socket => socket.Dispose());
            }
        }
    }
}
