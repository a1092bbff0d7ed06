using System.Globalization;
using System.Net;
using System.Net.Sockets;
using NbdKit.Tool;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A server that others wrote, which goes into the background when it is ready and is ended by its process id.
/// </summary>
internal sealed class PeerServer : IAsyncDisposable
{
    private const int Terminate = 15;

    private readonly ScratchDirectory _folder;

    private PeerServer(ScratchDirectory folder, int port)
    {
        _folder = folder;
        Port = port;
    }

    /// <summary>The path of the socket, or of where it would be.</summary>
    public string Socket => _folder["s"];

    /// <summary>The port, or 0 if it listens on a Unix socket.</summary>
    public int Port { get; }

    /// <summary>The directory of the certificates, with those of the client.</summary>
    public string Certificates => _folder["pki"];

    /// <summary>Starts nbdkit.</summary>
    public static Task<PeerServer> NbdkitAsync(SocketKind socket, params string[] arguments)
        => StartAsync(socket, server => ("nbdkit",
        [
            "-P", server._folder["pid"], .. server.Port == 0 ? new[] { "-U", server.Socket } : ["-i", "127.0.0.1", "-p", $"{server.Port}"],
            .. arguments.Select(a => a.Replace("$PKI", server.Certificates, StringComparison.Ordinal)),
        ]));

    /// <summary>Starts qemu-nbd with a disk of 1 MiB.</summary>
    public static Task<PeerServer> QemuAsync(SocketKind socket, params string[] arguments)
        => StartAsync(socket, server => ("qemu-nbd",
        [
            "--fork", "-t", "-f", "raw", $"--pid-file={server._folder["pid"]}",
            .. server.Port == 0 ? new[] { "-k", server.Socket } : ["-b", "127.0.0.1", "-p", $"{server.Port}"],
            .. arguments.Select(a => a.Replace("$PKI", server.Certificates, StringComparison.Ordinal)),
            server._folder.Write("disk", TestData.Random(1 << 20, 1)),
        ]));

    /// <summary>Starts nbd-server with an export "disk" of 1 MiB.</summary>
    /// <param name="generic">More lines of its general section.</param>
    public static Task<PeerServer> NbdServerAsync(params string[] generic)
        => StartAsync(SocketKind.Tcp, server =>
        {
            string disk = server._folder.Write("disk", TestData.Random(1 << 20, 1));
            string[] lines =
            [
                "[generic]", "listenaddr = 127.0.0.1", $"port = {server.Port}", "allowlist = true",
                .. generic.Select(line => line.Replace("$PKI", server.Certificates, StringComparison.Ordinal)),
                "[disk]", $"exportname = {disk}", "",
            ];
            string config = server._folder.Write("config", System.Text.Encoding.UTF8.GetBytes(string.Join('\n', lines)));
            return ("nbd-server", ["-C", config, "-p", server._folder["pid"]]);
        });

    public async ValueTask DisposeAsync()
    {
        int pid = int.Parse((await File.ReadAllTextAsync(_folder["pid"])).Trim(), CultureInfo.InvariantCulture);
        _ = NativeMethods.SendSignal(pid, Terminate);
        _folder.Dispose();
    }

    private static async Task<PeerServer> StartAsync(
        SocketKind socket, Func<PeerServer, (string Program, string[] Arguments)> command)
    {
        var folder = new ScratchDirectory();
        var server = new PeerServer(folder, socket == SocketKind.Tcp ? FreePort() : 0);
        Directory.CreateDirectory(server.Certificates);
        ServerCertificates.Write(server.Certificates, withClient: true);
        (string program, string[] arguments) = command(server);
        (await Peer.RunAsync(program, arguments)).Expect(0);
        return server;
    }

    private static int FreePort()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }
}
