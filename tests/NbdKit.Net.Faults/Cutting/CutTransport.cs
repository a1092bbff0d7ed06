using NbdKit.Transports;

namespace NbdKit.Faults.Cutting;

/// <summary>A peer that sends so many bytes of a session and then stops.</summary>
/// <param name="bytes">The session.</param>
/// <param name="at">The bytes that it sends.</param>
/// <param name="kind">How it stops.</param>
/// <param name="release">Completes when the bytes of the transmission phase may come; null if at once.</param>
internal sealed class CutTransport(byte[] bytes, int at, CutKind kind, Task? release = null) : Transport
{
    private readonly TaskCompletionSource _stalled = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly MemoryStream _output = new();
    private int _position;
    private bool _transmits;
    private volatile bool _aborted;
    private volatile bool _finished;

    /// <summary>Completes when somebody waits for a byte that does not come.</summary>
    public Task Stalled => _stalled.Task;

    /// <summary>What was sent to the peer.</summary>
    public byte[] Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToArray();
            }
        }
    }

    /// <summary>A peer that stalls closes after all.</summary>
    public void Finish()
    {
        _finished = true;
        _ended.TrySetResult();
    }

    public override void BeginTransmission() => _transmits = true;

    public override async ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (_transmits && release is not null)
        {
            await release.WaitAsync(cancellationToken);
        }
        ObjectDisposedException.ThrowIf(_aborted, this);
        if (_position < at)
        {
            int count = Math.Min(buffer.Length, at - _position);
            bytes.AsSpan(_position, count).CopyTo(buffer.Span);
            _position += count;
            return count;
        }
        if (kind == CutKind.Reset)
        {
            throw new IOException("The peer has reset the connection.");
        }
        if (kind == CutKind.Stall)
        {
            _stalled.TrySetResult();
            await _ended.Task.WaitAsync(cancellationToken);
            ObjectDisposedException.ThrowIf(!_finished, this);
        }
        return 0;
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(_aborted, this);
        lock (_output)
        {
            _output.Write(data.Span);
        }
        return default;
    }

    public override ValueTask CloseAsync() => default;

    public override void Abort()
    {
        _aborted = true;
        _ended.TrySetResult();
    }
}
