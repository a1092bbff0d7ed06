namespace NbdKit.Transports;

/// <summary>
/// A socket whose busy connection runs on a thread of its own, blocking in system calls; while it is idle it waits
/// asynchronously and has no thread.
/// </summary>
/// <remarks>
/// The loop of the connection is written as if everything were asynchronous. While it runs on its thread every await completes
/// at once, so it stays there; when something did not, the next receive brings it back.
/// </remarks>
internal sealed class PumpedTransport(SocketTransport socket, PumpThreads threads) : Transport
{
    private PumpThread? _thread;
    private bool _enabled;

    public override NbdPeer Peer => socket.Peer;

    /// <summary>From now on a thread may be used; the handshake does without.</summary>
    public override void BeginTransmission() => _enabled = socket.CanBlock;

    public override ValueTask WaitForDataAsync(CancellationToken cancellationToken)
        => _thread is null ? socket.WaitForDataAsync(cancellationToken) : default;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (_thread is { IsCurrent: true })
        {
            int received = socket.Receive(buffer.Span);
            if (received >= 0)
            {
                return new ValueTask<int>(received);
            }
            cancellationToken.ThrowIfCancellationRequested();
            ReturnThread();
        }
        return ReceiveSlowlyAsync(buffer, cancellationToken);
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => socket.SendAsync(bytes, cancellationToken);

    public override bool IsPeerGone() => socket.IsPeerGone();

    public override void StopReceiving() => socket.StopReceiving();

    public override ValueTask CloseAsync()
    {
        ReturnThread();
        return socket.CloseAsync();
    }

    public override void Abort() => socket.Abort();

    /// <summary>Gives the thread back at the end of the connection.</summary>
    public override void EndTransmission() => ReturnThread();

    private async ValueTask<int> ReceiveSlowlyAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (_thread is null)
        {
            int first = await socket.ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
            if (_enabled && first > 0 && threads.TryRent(out _thread))
            {
                await _thread.SwitchTo();
            }
            return first;
        }
        await _thread.SwitchTo();
        return await ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
    }

    private void ReturnThread()
    {
        if (Interlocked.Exchange(ref _thread, null) is { } thread)
        {
            threads.Return(thread);
        }
    }
}
