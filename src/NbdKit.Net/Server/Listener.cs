using System.Net;
using System.Net.Sockets;
using NbdKit.Native;

namespace NbdKit.Server;

/// <summary>Accepts clients on one endpoint until it is disposed of.</summary>
internal sealed class Listener : IAsyncDisposable
{
    // Descriptors run out when the rest of the process uses them up: accepting in a tight loop would only burn CPU.
    private static readonly TimeSpan BackOff = TimeSpan.FromMilliseconds(100);

    private readonly ServerCore _server;
    private readonly Socket _socket;
    private readonly CancellationTokenSource _stopping = new();
    private readonly string? _path;
    private Task _accepting = Task.CompletedTask;

    private Listener(ServerCore server, Socket socket, EndPoint endPoint, string? path)
    {
        _server = server;
        _socket = socket;
        _path = path;
        EndPoint = endPoint;
    }

    /// <summary>Where clients connect to, with the port resolved.</summary>
    public EndPoint EndPoint { get; }

    /// <summary>Binds an endpoint; nothing is accepted before <see cref="Start"/>.</summary>
    public static Listener Bind(ServerCore server, EndPoint endPoint)
    {
        bool isUnix = endPoint.AddressFamily == AddressFamily.Unix;
        bool isVsock = endPoint is VsockEndPoint;
        Socket socket = isVsock ? LinuxVsock.Create() : new Socket(
            endPoint.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            if (endPoint.AddressFamily == AddressFamily.InterNetworkV6)
            {
                // So that the same port can be bound for IPv4 as well.
                socket.DualMode = false;
            }
            if (!isUnix && !isVsock && !OperatingSystem.IsWindows())
            {
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            }
            socket.Bind(endPoint);
            socket.Listen(server.Options.Backlog);
            EndPoint bound = isVsock ? LinuxVsock.LocalEndPoint(socket) ?? endPoint : socket.LocalEndPoint!;
            return new Listener(server, socket, bound, isUnix ? endPoint.ToString() : null);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    public void Start()
    {
        Log.Listening(_server.Logger, EndPoint.ToString() ?? "");
        _accepting = AcceptAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        _socket.Dispose();
        await _accepting.ConfigureAwait(false);
        if (_path is { Length: > 0 } && _path[0] != '@' && _path[0] != '\0')
        {
            try
            {
                File.Delete(_path);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                Log.AcceptFailed(_server.Logger, e);
            }
        }
    }

    private async Task AcceptAsync()
    {
        bool failing = false;
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                Socket client = await _socket.AcceptAsync(_stopping.Token).ConfigureAwait(false);
                failing = false;
                // On the pool, so that a client whose first steps complete at once does not hold up the next.
                ThreadPool.UnsafeQueueUserWorkItem(
                    static work => _ = work.Listener.ServeAsync(work.Client), (Listener: this, Client: client), preferLocal: false);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
            {
                if (_stopping.IsCancellationRequested)
                {
                    return;
                }
                if (!failing)
                {
                    Log.AcceptFailed(_server.Logger, e);
                }
                failing = true;
                await Task.Delay(BackOff, _server.TimeProvider, _stopping.Token)
                    .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private void KeepAlive(Socket client)
    {
        if (_server.Options.KeepAlive is not { } probes
            || client.AddressFamily is not (AddressFamily.InterNetwork or AddressFamily.InterNetworkV6))
        {
            return;
        }
        client.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        client.SetSocketOption(
            SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, (int)Math.Ceiling(probes.Time.TotalSeconds));
        client.SetSocketOption(
            SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, (int)Math.Ceiling(probes.Interval.TotalSeconds));
        client.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, probes.Retries);
    }

    private async Task ServeAsync(Socket client)
    {
        try
        {
            KeepAlive(client);
            await _server.ServeAsync(_server.TransportFor(client), CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client was gone before it could be looked at.
            Log.TransportFailed(_server.Logger, 0, e);
            client.Dispose();
        }
    }
}
