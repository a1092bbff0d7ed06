using System.Runtime.CompilerServices;
using NbdKit.Buffers;

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
    private readonly ReceiveSpin _spin = new(threads);
    private PumpThread? _thread;
    private bool _enabled;

    public override NbdPeer Peer => socket.Peer;

    public override bool IsBusy => _thread is { IsCurrent: true };

    /// <summary>From now on a thread may be used; the handshake does without.</summary>
    public override void BeginTransmission() => _enabled = socket.CanBlock;

    public override ValueTask WaitForDataAsync(CancellationToken cancellationToken)
        => IsBusy ? default : socket.WaitForDataAsync(cancellationToken);

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => IsBusy
            ? new ValueTask<int>(ReceiveHere(buffer))
            : ReceiveElsewhereAsync(buffer, cancellationToken);

    public override bool CanReceiveNow => socket.CanReceiveNow;

    public override int ReceiveNow(Span<byte> buffer) => socket.ReceiveNow(buffer);

    public override Action? Progressed
    {
        get => socket.Progressed;
        set => socket.Progressed = value;
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => socket.SendAsync(bytes, cancellationToken);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, Loan loan, CancellationToken cancellationToken)
        => socket.SendAsync(bytes, loan, cancellationToken);

    public override ValueTask<int> ReceiveAsync(Loan loan, int position, CancellationToken cancellationToken)
        => IsBusy
            ? new ValueTask<int>(Received(socket.Receive(loan, position)))
            : ReceiveElsewhereAsync(loan.PieceAt(position), cancellationToken);

    public override bool IsClientWaiting
    {
        set => _spin.IsClientWaiting = value;
    }

    public override bool TakesFiles => socket.TakesFiles;

    public override bool IsPeerGone() => socket.IsPeerGone();

    public override void StopReceiving() => socket.StopReceiving();

    public override ValueTask CloseAsync()
    {
        ReturnThread();
        return socket.CloseAsync();
    }

    public override void Abort() => socket.Abort();

    public override async ValueTask EndTransmissionAsync()
    {
        // What follows is the layers' business and may take its time: not on a thread that is another's by then.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        ReturnThread();
    }

    private int ReceiveHere(Memory<byte> buffer)
    {
        if (_spin.Begin())
        {
            do
            {
                int received = socket.ReceiveNow(buffer.Span);
                if (received >= 0)
                {
                    _spin.Succeed();
                    return received;
                }
            }
            while (_spin.Continue());
        }
        return Received(socket.Receive(buffer.Span));
    }

    private int Received(int received)
    {
        if (received < 0)
        {
            ReturnThread();
        }
        return received;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> ReceiveElsewhereAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (_thread is { } thread)
        {
            await thread.SwitchTo();
            return ReceiveHere(buffer);
        }
        // A thread only for a client that sends: not for one that stopped inside a message.
        int received = await socket.ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
        if (_enabled && received > 0 && threads.TryRent(out _thread))
        {
            await _thread.SwitchTo();
        }
        return received;
    }

    private void ReturnThread()
    {
        if (Interlocked.Exchange(ref _thread, null) is { } thread)
        {
            threads.Return(thread);
        }
    }
}
