using NbdKit.Transports;

namespace NbdKit.Faults.Mutation;

/// <summary>A peer all of whose bytes are there already, in pieces: nothing waits, and no thread changes.</summary>
/// <param name="chunks">The pieces.</param>
/// <param name="output">Takes what is sent; the caller's, so that its memory need not grow each time.</param>
/// <param name="waitsForRelease">Whether the pieces of the transmission phase come only after <see cref="Release"/>.</param>
internal sealed class ReplayTransport(byte[][] chunks, MemoryStream output, bool waitsForRelease = false) : Transport
{
    private readonly TaskCompletionSource? _gate = waitsForRelease ? new TaskCompletionSource() : null;
    private int _chunk;
    private int _at;
    private bool _transmits;
    private volatile bool _aborted;

    /// <summary>What was sent.</summary>
    public byte[] Output
    {
        get
        {
            lock (output)
            {
                return output.ToArray();
            }
        }
    }

    /// <summary>Lets the transmission phase begin.</summary>
    public void Release() => _gate?.TrySetResult();

    public override void BeginTransmission() => _transmits = true;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => _transmits && _gate is { Task.IsCompleted: false }
            ? LaterAsync(buffer, cancellationToken)
            : new(Receive(buffer.Span));

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(_aborted, this);
        lock (output)
        {
            output.Write(bytes.Span);
        }
        return default;
    }

    public override ValueTask CloseAsync() => default;

    public override void Abort()
    {
        _aborted = true;
        Release();
    }

    private async ValueTask<int> LaterAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate!.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        return Receive(buffer.Span);
    }

    private int Receive(Span<byte> buffer)
    {
        ObjectDisposedException.ThrowIf(_aborted, this);
        while (_chunk < chunks.Length && _at == chunks[_chunk].Length)
        {
            _chunk++;
            _at = 0;
        }
        if (_chunk == chunks.Length)
        {
            return 0;
        }
        int count = Math.Min(buffer.Length, chunks[_chunk].Length - _at);
        chunks[_chunk].AsSpan(_at, count).CopyTo(buffer);
        _at += count;
        return count;
    }
}
