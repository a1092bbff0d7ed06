using System.Buffers;
using System.IO.Pipelines;

namespace NbdKit.Transports;

/// <summary>A pair of pipes, as Kestrel and tests have them.</summary>
internal sealed class PipeTransport(IDuplexPipe pipe) : Transport
{
    private readonly Lock _lock = new();
    private bool _receiving;
    private bool _sending;
    private bool _aborted;
    private volatile bool _peerGone;

    public override async ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Begin(ref _receiving);
        try
        {
            ReadResult result = await pipe.Input.ReadAsync(cancellationToken).ConfigureAwait(false);
            if (result.IsCanceled)
            {
                throw new OperationCanceledException("The pipe was cancelled.");
            }
            ReadOnlySequence<byte> some = result.Buffer.Slice(0, Math.Min(buffer.Length, result.Buffer.Length));
            some.CopyTo(buffer.Span);
            // Advancing gives the segments back: nothing of the sequence may be looked at afterwards.
            int received = (int)some.Length;
            pipe.Input.AdvanceTo(some.End);
            return received;
        }
        finally
        {
            End(ref _receiving);
        }
    }

    public override async ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        Begin(ref _sending);
        try
        {
            while (bytes.Length > 0)
            {
                ReadOnlyMemory<byte> piece = bytes[..Math.Min(bytes.Length, PieceBytes)];
                FlushResult result = await pipe.Output.WriteAsync(piece, cancellationToken).ConfigureAwait(false);
                if (result.IsCompleted || result.IsCanceled)
                {
                    _peerGone = true;
                    throw new IOException("The client reads no more.");
                }
                bytes = bytes[piece.Length..];
                Progressed?.Invoke();
            }
        }
        finally
        {
            End(ref _sending);
        }
    }

    public override bool IsPeerGone() => _peerGone;

    public override async ValueTask CloseAsync()
    {
        await pipe.Output.CompleteAsync().ConfigureAwait(false);
        await pipe.Input.CompleteAsync().ConfigureAwait(false);
    }

    public override void Abort()
    {
        // A pipe must not be completed while it is read or written: then the operation is cancelled, and completes it.
        lock (_lock)
        {
            _aborted = true;
            Cancel(pipe.Input.CancelPendingRead);
            Cancel(pipe.Output.CancelPendingFlush);
            CompleteIfAborted();
        }
    }

    private static void Cancel(Action pending)
    {
        try
        {
            pending();
        }
        catch (ObjectDisposedException)
        {
            // One over a stream that has ended already.
        }
    }

    private void Begin(ref bool busy)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_aborted, this);
            busy = true;
        }
    }

    private void End(ref bool busy)
    {
        lock (_lock)
        {
            busy = false;
            CompleteIfAborted();
        }
    }

    private void CompleteIfAborted()
    {
        if (_aborted && !_receiving)
        {
            pipe.Input.Complete();
        }
        if (_aborted && !_sending)
        {
            pipe.Output.Complete();
        }
    }
}
