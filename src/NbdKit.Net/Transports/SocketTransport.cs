using System.Net.Sockets;

namespace NbdKit.Transports;

/// <summary>A connected stream socket.</summary>
internal sealed class SocketTransport : Transport
{
    // How long a client gets to take the last bytes and close, before the socket is closed under them.
    private static readonly TimeSpan Linger = TimeSpan.FromSeconds(1);

    private readonly Socket _socket;

    public SocketTransport(Socket socket)
    {
        _socket = socket;
        if (socket.AddressFamily is AddressFamily.InterNetwork or AddressFamily.InterNetworkV6)
        {
            socket.NoDelay = true;
        }
        Peer = Describe(socket);
    }

    public override NbdPeer Peer { get; }

    public override async ValueTask WaitForDataAsync(CancellationToken cancellationToken)
    {
        if (_socket.Available == 0)
        {
            await _socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, cancellationToken).ConfigureAwait(false);
        }
    }

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => _socket.ReceiveAsync(buffer, SocketFlags.None, cancellationToken);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        ValueTask<int> sending = _socket.SendAsync(bytes, SocketFlags.None, cancellationToken);
        if (sending.IsCompletedSuccessfully)
        {
            int sent = sending.Result;
            return sent == bytes.Length ? default : SendRestAsync(new ValueTask<int>(sent), bytes, cancellationToken);
        }
        return SendRestAsync(sending, bytes, cancellationToken);
    }

    public override bool IsPeerGone()
    {
        // A Unix socket knows whether its peer closed altogether or only said that it will send no more: sending, even
        // nothing, fails in the first case. A TCP socket cannot tell.
        try
        {
            _socket.Send(ReadOnlySpan<byte>.Empty);
            return false;
        }
        catch (SocketException)
        {
            return true;
        }
        catch (ObjectDisposedException)
        {
            return true;
        }
    }

    public override async ValueTask CloseAsync()
    {
        // Closing a socket that holds unread input resets the connection, and the client may lose the last replies. So: say
        // that nothing more comes, drain for a moment, close.
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
            using var timeout = new CancellationTokenSource(Linger);
            byte[] sink = new byte[1024];
            for (int i = 0; i < 1024; i++)
            {
                if (await _socket.ReceiveAsync(sink, SocketFlags.None, timeout.Token).ConfigureAwait(false) == 0)
                {
                    break;
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The client is gone, or does not go: either way it had its moment.
        }
        _socket.Dispose();
    }

    public override void Abort() => _socket.Dispose();

    private async ValueTask SendRestAsync(
        ValueTask<int> sending, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        int sent = await sending.ConfigureAwait(false);
        while (sent < bytes.Length)
        {
            bytes = bytes[sent..];
            sent = await _socket.SendAsync(bytes, SocketFlags.None, cancellationToken).ConfigureAwait(false);
        }
    }

    private static NbdPeer Describe(Socket socket)
    {
        var peer = new NbdPeer { EndPoint = socket.RemoteEndPoint };
        if (socket.AddressFamily != AddressFamily.Unix || !OperatingSystem.IsLinux())
        {
            return peer;
        }
        // SOL_SOCKET, SO_PEERCRED: struct ucred { pid_t pid; uid_t uid; gid_t gid; }
        Span<byte> credentials = stackalloc byte[12];
        try
        {
            socket.GetRawSocketOption(1, 17, credentials);
        }
        catch (SocketException)
        {
            return peer;
        }
        return peer with
        {
            ProcessId = BitConverter.ToInt32(credentials),
            UserId = BitConverter.ToUInt32(credentials[4..]),
            GroupId = BitConverter.ToUInt32(credentials[8..]),
        };
    }
}
