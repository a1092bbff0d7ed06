using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using NbdKit.Native;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>Connects, and takes a connection through its handshake.</summary>
internal static class ClientConnector
{
    /// <summary>Opens the export that a URI names.</summary>
    public static Task<ClientSession> ConnectAsync(Uri uri, NbdClientOptions options, CancellationToken cancellationToken)
        => ConnectAsync(ClientTarget.For(uri, options), cancellationToken);

    /// <summary>Opens the export that the options name, at an endpoint.</summary>
    public static Task<ClientSession> ConnectAsync(
        EndPoint endPoint, NbdClientOptions options, CancellationToken cancellationToken)
        => ConnectAsync(ClientTarget.For(endPoint, options), cancellationToken);

    /// <summary>Opens the export that the options name, over a connected socket.</summary>
    public static Task<ClientSession> ConnectAsync(
        Socket socket, NbdClientOptions options, CancellationToken cancellationToken)
        => ConnectAsync(ClientTarget.For(socket, options), cancellationToken);

    /// <summary>Opens the export that the options name, over a stream.</summary>
    public static Task<ClientSession> ConnectAsync(
        Stream stream, NbdClientOptions options, CancellationToken cancellationToken)
        => ConnectAsync(ClientTarget.For(stream, options), cancellationToken);

    /// <summary>Opens the export that the options name, over a pair of pipes.</summary>
    public static Task<ClientSession> ConnectAsync(
        IDuplexPipe pipe, NbdClientOptions options, CancellationToken cancellationToken)
        => ConnectAsync(ClientTarget.For(pipe, options), cancellationToken);

    /// <summary>The whole way to the transmission phase of an export.</summary>
    public static async Task<ClientSession> ConnectAsync(ClientTarget target, CancellationToken cancellationToken)
    {
        Transport transport = await OpenAsync(target, cancellationToken).ConfigureAwait(false);
        return await ClientHandshake.RunAsync(transport, target.Options, target.Host, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The way to the point where options can be sent.</summary>
    public static async Task<ClientHandshake> BeginAsync(ClientTarget target, CancellationToken cancellationToken)
    {
        Transport transport = await OpenAsync(target, cancellationToken).ConfigureAwait(false);
        return await ClientHandshake.BeginAsync(transport, target.Options, target.Host, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The transport of a connected socket, which it owns.</summary>
    public static Transport TransportFor(Socket socket)
    {
        // As the server's: while there is something to receive, a thread of its own waits for it in system calls.
        return new PumpedTransport(
            new SocketTransport(socket, new ReadinessPoller(), new SplicePipes(0), ownsPoller: true), new PumpThreads(1));
    }

    private static async Task<Transport> OpenAsync(ClientTarget target, CancellationToken cancellationToken)
    {
        if (target.Transport is { } transport)
        {
            return transport;
        }
        cancellationToken.ThrowIfCancellationRequested();
        EndPoint endPoint = target.EndPoint!;
        using var timeout = new CancellationTokenSource(target.Options.ConnectTimeout, target.Options.TimeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            return await ConnectSocketAsync(endPoint, either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException e)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw new NbdClientException(NbdClientError.Timeout, $"connecting to {Shown(endPoint)} took too long", e);
        }
        catch (Exception e) when (e is SocketException or NotSupportedException)
        {
            throw new NbdClientException(NbdClientError.ConnectFailed, $"cannot connect to {Shown(endPoint)}: {e.Message}", e);
        }
    }

    private static string? Shown(EndPoint endPoint)
        => endPoint is DnsEndPoint dns ? $"{dns.Host}, port {dns.Port}" : endPoint.ToString();

    private static async Task<Transport> ConnectSocketAsync(EndPoint endPoint, CancellationToken cancellationToken)
    {
        // Without a family one socket tries every address of a host, of both families.
        Socket socket = endPoint switch
        {
            DnsEndPoint { AddressFamily: AddressFamily.Unspecified } => new Socket(SocketType.Stream, ProtocolType.Tcp),
            VsockEndPoint => LinuxVsock.Create(),
            UnixDomainSocketEndPoint => new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified),
            _ => new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp),
        };
        try
        {
            await ConnectAsync(socket, endPoint, cancellationToken).ConfigureAwait(false);
            return TransportFor(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static async Task ConnectAsync(Socket socket, EndPoint endPoint, CancellationToken cancellationToken)
    {
        if (!OperatingSystem.IsLinux())
        {
            await socket.ConnectAsync(endPoint, cancellationToken).ConfigureAwait(false);
            return;
        }
        // A socket that was connected asynchronously stays in the runtime's event loop, which every message wakes from then on.
        Task connecting = Task.Factory.StartNew(
            () => Connect(socket, endPoint), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        try
        {
            await connecting.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // The thread lets go when the socket is disposed of; how its call ends is of no interest then.
            _ = connecting.ContinueWith(
                static task => _ = task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            throw;
        }
    }

    private static void Connect(Socket socket, EndPoint endPoint)
    {
        if (endPoint is VsockEndPoint vsock)
        {
            LinuxVsock.Connect(socket, vsock);
        }
        else
        {
            socket.Connect(endPoint);
        }
    }
}
