using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Native;

namespace NbdKit.Transports;

/// <summary>
/// A connected stream socket. Where there is a <see cref="ReadinessPoller"/> every call to it is a plain system call, made when
/// it will not block for long; else waiting is left to the runtime.
/// </summary>
internal sealed class SocketTransport : Transport
{
    // How long a receive blocks before the client is taken for idle.
    private const int ReceiveMilliseconds = 200;

    // How long a send blocks. A client that takes nothing for so long may be busy sending: the receiving must go on then, or
    // both sides would wait for each other.
    private const int SendMilliseconds = 2;

    // What a Unix socket takes before the client receives some of it: a send of a large reply then waits less often, and large
    // reads are up to a third faster. The kernel counts twice as much, and the administrator's limit (net.core.wmem_max) holds.
    // TCP finds a size by itself.
    private const int UnixSendBuffer = 768 << 10;

    // How long a client gets to take the last bytes and close, before the socket is closed under them.
    private static readonly TimeSpan Linger = TimeSpan.FromSeconds(1);

    private readonly Socket _socket;
    private readonly SocketWatch? _watch;
    private readonly SplicePipes _pipes;
    private readonly ReadinessPoller? _ownedPoller;

    /// <param name="socket">The socket, from now on the transport's.</param>
    /// <param name="poller">What waits for it.</param>
    /// <param name="pipes">What lent memory is sent through.</param>
    /// <param name="ownsPoller">Whether the poller waits for this socket alone, and ends with it.</param>
    public SocketTransport(Socket socket, ReadinessPoller poller, SplicePipes pipes, bool ownsPoller = false)
    {
        _ownedPoller = ownsPoller ? poller : null;
        _pipes = pipes;
        _socket = socket;
        if (socket.AddressFamily is AddressFamily.InterNetwork or AddressFamily.InterNetworkV6)
        {
            socket.NoDelay = true;
        }
        else if (OperatingSystem.IsLinux() && socket.AddressFamily == AddressFamily.Unix && socket.SendBufferSize < UnixSendBuffer)
        {
            socket.SendBufferSize = UnixSendBuffer;
        }
        Peer = Describe(socket);
        if (OperatingSystem.IsLinux())
        {
            socket.ReceiveTimeout = ReceiveMilliseconds;
            socket.SendTimeout = SendMilliseconds;
            LinuxSocket.MakeBlocking(socket.SafeHandle);
        }
        _watch = poller.Watch(socket);
    }

    public override NbdPeer Peer { get; }

    public override ValueTask WaitForDataAsync(CancellationToken cancellationToken)
        => _watch?.WaitReadableAsync() ?? WaitForDataByReceivingAsync(cancellationToken);

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => _watch is null
            ? _socket.ReceiveAsync(buffer, SocketFlags.None, cancellationToken)
            : ReceiveWhenReadableAsync(_watch, buffer, cancellationToken);

    /// <summary>Whether the methods that block may be used.</summary>
    public bool CanBlock => _watch is not null;

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        if (_watch is null)
        {
            return SendByRuntimeAsync(bytes, cancellationToken);
        }
        while (true)
        {
            int sent = LinuxSocket.Send(_socket.SafeHandle, bytes.Span);
            if (sent == bytes.Length)
            {
                return default;
            }
            if (sent > 0)
            {
                bytes = bytes[sent..];
            }
            else
            {
                return SendWhenWritableAsync(_watch, bytes, cancellationToken);
            }
        }
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, Loan loan, CancellationToken cancellationToken)
    {
        if (_watch is null)
        {
            return base.SendAsync(bytes, loan, cancellationToken);
        }
        // Over TCP references to pages are no faster than a copy, at least on loopback.
        SplicePipe? pipe = loan.File is null && _socket.AddressFamily == AddressFamily.Unix ? _pipes.TryRent() : null;
        int sent;
        try
        {
            sent = SendNow(bytes.Span, loan, 0, pipe);
        }
        catch
        {
            _pipes.Return(pipe);
            throw;
        }
        if (sent < bytes.Length + loan.Length)
        {
            return SendWhenWritableAsync(_watch, bytes, loan, sent, pipe, cancellationToken);
        }
        _pipes.Return(pipe);
        return default;
    }

    public override bool TakesFiles => _watch is not null;

    /// <summary>Receives into lent memory on the caller's thread, which may block for a while; -1 if nothing came.</summary>
    public int Receive(Loan loan, int position) => LinuxSocket.Receive(_socket.SafeHandle, loan, position);

    /// <summary>Receives on the caller's thread, which may block for a while; -1 if nothing came.</summary>
    public int Receive(Span<byte> buffer) => LinuxSocket.Receive(_socket.SafeHandle, buffer, wait: true);

    public override bool CanReceiveNow => _watch is not null;

    public override int ReceiveNow(Span<byte> buffer) => LinuxSocket.Receive(_socket.SafeHandle, buffer, wait: false);

    public override void StopReceiving()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Receive);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It has ended already.
        }
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
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
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
            using var limit = new Timer(_ => _watch?.Close(), null, Linger, Timeout.InfiniteTimeSpan);
            using var timeout = new CancellationTokenSource(Linger);
            byte[] sink = new byte[1024];
            for (int i = 0; i < 1024 && !timeout.IsCancellationRequested; i++)
            {
                if (await ReceiveAsync(sink, timeout.Token).ConfigureAwait(false) == 0)
                {
                    break;
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The client is gone, or does not go: either way it had its moment.
        }
        _watch?.Close();
        _socket.Dispose();
        _ownedPoller?.Dispose();
    }

    public override void Abort()
    {
        try
        {
            // Wakes a thread that waits in a system call.
            _socket.Shutdown(SocketShutdown.Both);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It has ended already.
        }
        _watch?.Close();
        _socket.Dispose();
        _ownedPoller?.Dispose();
    }

    private async ValueTask WaitForDataByReceivingAsync(CancellationToken cancellationToken)
        => await _socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, cancellationToken).ConfigureAwait(false);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> ReceiveWhenReadableAsync(
        SocketWatch watch, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (true)
        {
            int received = LinuxSocket.Receive(_socket.SafeHandle, buffer.Span, wait: false);
            if (received >= 0)
            {
                return received;
            }
            await watch.WaitReadableAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask SendWhenWritableAsync(
        SocketWatch watch, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        await watch.WaitWritableAsync().ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        Progressed?.Invoke();
        await SendAsync(bytes, cancellationToken).ConfigureAwait(false);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask SendWhenWritableAsync(
        SocketWatch watch,
        ReadOnlyMemory<byte> bytes,
        Loan loan,
        int sent,
        SplicePipe? pipe,
        CancellationToken cancellationToken)
    {
        try
        {
            while (sent < bytes.Length + loan.Length)
            {
                await watch.WaitWritableAsync().ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
                Progressed?.Invoke();
                sent = SendNow(bytes.Span, loan, sent, pipe);
            }
        }
        finally
        {
            _pipes.Return(pipe);
        }
    }

    /// <summary>Sends from a position in the bytes and the loan behind them on; returns the position that was reached.</summary>
    private int SendNow(ReadOnlySpan<byte> bytes, Loan loan, int sent, SplicePipe? pipe)
    {
        int length = bytes.Length + loan.Length;
        while (sent < length)
        {
            int count = SendSome(bytes, loan, sent, pipe);
            if (count < 0)
            {
                break;
            }
            sent += count;
        }
        return sent;
    }

    private int SendSome(ReadOnlySpan<byte> bytes, Loan loan, int sent, SplicePipe? pipe)
    {
        SafeSocketHandle socket = _socket.SafeHandle;
        if (pipe is null && loan.File is null)
        {
            // Slabs and what layers lend do not move for as long as they live.
            return LinuxSocket.Send(socket, bytes, loan, sent);
        }
        if (sent < bytes.Length)
        {
            return LinuxSocket.Send(socket, bytes[sent..], more: true);
        }
        int position = sent - bytes.Length;
        if (loan.File is null)
        {
            return pipe!.Send(socket, loan, position);
        }
        int count = LinuxSplice.Send(socket, loan.File, loan.FileOffset + position, loan.Length - position);
        return count != 0 ? count : throw new IOException("The file became shorter while a part of it was sent.");
    }

    private async ValueTask SendByRuntimeAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        while (bytes.Length > 0)
        {
            int sent = await _socket.SendAsync(bytes, SocketFlags.None, cancellationToken).ConfigureAwait(false);
            bytes = bytes[sent..];
            Progressed?.Invoke();
        }
    }

    private static NbdPeer Describe(Socket socket)
    {
        if (OperatingSystem.IsLinux() && socket.AddressFamily == AddressFamily.Unknown)
        {
            return new NbdPeer { EndPoint = LinuxVsock.RemoteEndPoint(socket) };
        }
        EndPoint? endPoint = socket.RemoteEndPoint;
        // A Unix client rarely binds a name to its own end; thousands of idle ones need not keep an empty one each.
        // Where it has credentials they tell that it is one.
        bool isNameless = endPoint is UnixDomainSocketEndPoint && endPoint.ToString() is not { Length: > 0 };
        var peer = new NbdPeer { EndPoint = isNameless && OperatingSystem.IsLinux() ? null : endPoint };
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
