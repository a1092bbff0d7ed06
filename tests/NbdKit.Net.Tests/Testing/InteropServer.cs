using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A server that programs connect to. They are all taken to keep the protocol, so a connection that ends with a complaint
/// of either side fails the test.
/// </summary>
internal sealed class InteropServer : IAsyncDisposable
{
    private static readonly NbdDisconnectReason[] OrderlyEnds =
    [
        NbdDisconnectReason.ClientDone, NbdDisconnectReason.ClientGone, NbdDisconnectReason.ServerStopped,
    ];

    private readonly ScratchDirectory? _folder;
    private readonly ConcurrentQueue<NbdDisconnect> _ends = [];

    private InteropServer(NbdBackend chain, SocketKind socket, NbdServerOptions options)
    {
        EndPoint endPoint = new IPEndPoint(IPAddress.Loopback, 0);
        if (socket == SocketKind.Unix)
        {
            _folder = new ScratchDirectory();
            endPoint = new UnixDomainSocketEndPoint(_folder["s"]);
        }
        Server = new NbdServer(chain, options with
        {
            EndPoints = [endPoint],
            LoggerFactory = Log,
            Disconnected = (_, end) => _ends.Enqueue(end),
        });
    }

    public NbdServer Server { get; }

    public RecordingLog Log { get; } = new();

    /// <summary>The NBD URI of the default export.</summary>
    public string Uri => Server.Uris[0].OriginalString;

    /// <summary>The path of the socket, if it is a Unix domain socket.</summary>
    public string SocketPath => _folder!["s"];

    /// <summary>The port, if it is TCP.</summary>
    public int Port => ((IPEndPoint)Server.EndPoints[0]).Port;

    /// <summary>Whether connections may end badly and errors may be logged: where the test is about that.</summary>
    public bool IsLenient { get; init; }

    public static Task<InteropServer> StartAsync(INbdPlugin plugin, params IReadOnlyList<INbdFilter> filters)
        => StartAsync(NbdBackend.Compose(plugin, filters));

    public static async Task<InteropServer> StartAsync(
        NbdBackend chain, SocketKind socket = SocketKind.Unix, NbdServerOptions? options = null, bool lenient = false)
    {
        var server = new InteropServer(chain, socket, options ?? new NbdServerOptions()) { IsLenient = lenient };
        await server.Server.StartAsync();
        return server;
    }

    /// <summary>The NBD URI of an export.</summary>
    public string UriOf(string export)
    {
        string name = System.Uri.EscapeDataString(export);
        return _folder is null ? $"nbd://127.0.0.1:{Port}/{name}" : $"nbd+unix:///{name}?socket={SocketPath}";
    }

    /// <summary>Stops the server; fails the test if a connection did not end well or an error was logged.</summary>
    public async ValueTask DisposeAsync()
    {
        await Server.DisposeAsync().AsTask().WaitAsync(Peer.Deadline);
        _folder?.Dispose();
        if (IsLenient)
        {
            return;
        }
        Assert.That(_ends.Where(end => !OrderlyEnds.Contains(end.Reason)), Is.Empty, "how connections ended");
        Assert.That(Log.Entries.Where(entry => entry.Level >= LogLevel.Error), Is.Empty, "what was logged");
    }
}
