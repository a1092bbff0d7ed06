using System.Net;
using System.Net.Sockets;
using NbdKit.Native;

namespace NbdKit.Server;

/// <summary>Accepts clients on one endpoint until it is disposed of.</summary>
internal sealed class Listener : IAsyncDisposable
{
    // IPPROTO_TCP and TCP_USER_TIMEOUT of Linux.
    private const int TcpLevel = 6;
    private const int TcpUserTimeout = 18;

    // Descriptors run out when the rest of the process uses them up: accepting in a tight loop would only burn CPU.
    private static readonly TimeSpan BackOff = TimeSpan.FromMilliseconds(100);

    // One line of log says it; it may be so for hours, or come and go.
    private static readonly TimeSpan LogInterval = TimeSpan.FromSeconds(10);

    // What clients leave to the rest of the process: without a single descriptor it cannot even load code.
    private const int ReservedDescriptors = 16;

    private readonly ServerCore _server;
    private readonly Socket _socket;
    private readonly CancellationTokenSource _stopping = new();
    private readonly string? _path;
    private readonly long _highest = LinuxDescriptors.Limit is var limit ? limit - Math.Min(ReservedDescriptors, limit / 4) : 0;
    private long? _logged;
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
            // The runtime lets a port be had again whose connections linger. Asked for that, it lets several servers share one as well:
            // each client would get the disk of any of them.
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
        while (!_stopping.IsCancellationRequested)
        {
            Socket client;
            try
            {
                client = await _socket.AcceptAsync(_stopping.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
            {
                await BackOffAsync(e).ConfigureAwait(false);
                continue;
            }
            if (client.Handle >= _highest && !await WaitForDescriptorsAsync().ConfigureAwait(false))
            {
                client.Dispose();
                return;
            }
            // On the pool, so that a client whose first steps complete at once does not hold up the next.
            ThreadPool.UnsafeQueueUserWorkItem(
                static work => _ = work.Listener.ServeAsync(work.Client), (Listener: this, Client: client), preferLocal: false);
        }
    }

    /// <summary>
    /// Waits with a client that has one of the last descriptors until there are more; the next ones wait to be accepted. False if the
    /// listener ends first.
    /// </summary>
    private async ValueTask<bool> WaitForDescriptorsAsync()
    {
        while (!LinuxDescriptors.AreFreeBelow(_highest))
        {
            await BackOffAsync(null).ConfigureAwait(false);
            if (_stopping.IsCancellationRequested)
            {
                return false;
            }
        }
        return true;
    }

    private async ValueTask BackOffAsync(Exception? failure)
    {
        if (_stopping.IsCancellationRequested)
        {
            return;
        }
        if (_logged is not { } logged || _server.TimeProvider.GetElapsedTime(logged) >= LogInterval)
        {
            _logged = _server.TimeProvider.GetTimestamp();
            Log.AcceptFailed(_server.Logger, failure);
        }
        await Task.Delay(BackOff, _server.TimeProvider, _stopping.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>Has a TCP connection probed.</summary>
    internal static void KeepAlive(Socket client, NbdKeepAlive? probes)
    {
        if (probes is null
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
        if (OperatingSystem.IsLinux())
        {
            // While something that was sent is not acknowledged there are no probes: it is sent again, for a quarter of an hour.
            double longest = (probes.Time + (probes.Retries * probes.Interval)).TotalMilliseconds;
            client.SetRawSocketOption(TcpLevel, TcpUserTimeout, BitConverter.GetBytes((int)Math.Min(longest, int.MaxValue)));
        }
    }

    private async Task ServeAsync(Socket client)
    {
        try
        {
            KeepAlive(client, _server.Options.KeepAlive);
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
