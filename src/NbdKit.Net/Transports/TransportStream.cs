using System.Runtime.CompilerServices;
using NbdKit.Buffers;

namespace NbdKit.Transports;

/// <summary>
/// A transport as the stream that carries TLS records. What is written can be gathered, so that the records of a large reply
/// travel together. Its clock runs while the rest of a record is waited for: nobody above sees that there is a part of one.
/// </summary>
/// <remarks>
/// The tokens of <see cref="System.Net.Security.SslStream"/> are never used: a cancelled call leaves it unusable. Instead a
/// receive that has to end looks like the end of the stream, and a send fails only with its connection.
/// </remarks>
internal sealed class TransportStream(
    Transport transport, SlabPool pool, StallClock stall, CancellationToken receiving, CancellationToken aborted) : AsyncStream
{
    // SslStream sends from the reading side too, where TLS itself has something to say.
    private readonly SemaphoreSlim _sending = new(1, 1);
    private RecordCursor _records;
    private Slab? _gathered;
    private int _length;
    private bool _gathers;

    /// <summary>From now on what is written waits for <see cref="SendGatheredAsync"/>, or until a slab is full.</summary>
    public void Gather() => _gathers = true;

    /// <summary>Sends what was gathered, and gathers no more.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask SendGatheredAsync()
    {
        await _sending.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            _gathers = false;
            await FlushGatheredAsync().ConfigureAwait(false);
        }
        finally
        {
            _gathered?.Release();
            _gathered = null;
            _length = 0;
            _sending.Release();
        }
    }

    /// <summary>An empty buffer waits until there is something to read, where the transport can wait without one.</summary>
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        => buffer.IsEmpty ? WaitAsync() : ReceiveAsync(buffer);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        await _sending.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            if (!_gathers || buffer.Length > Slab.Size)
            {
                await FlushGatheredAsync().ConfigureAwait(false);
                await transport.SendAsync(buffer, aborted).ConfigureAwait(false);
                return;
            }
            if (Slab.Size - _length < buffer.Length)
            {
                await FlushGatheredAsync().ConfigureAwait(false);
            }
            _gathered ??= pool.Rent();
            buffer.CopyTo(_gathered.Memory[_length..]);
            _length += buffer.Length;
        }
        finally
        {
            _sending.Release();
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask FlushGatheredAsync()
    {
        if (_length > 0)
        {
            int length = _length;
            _length = 0;
            await transport.SendAsync(_gathered!.Memory[..length], aborted).ConfigureAwait(false);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> WaitAsync()
    {
        try
        {
            await transport.WaitForDataAsync(receiving).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (receiving.IsCancellationRequested)
        {
            // The read that follows finds the end.
        }
        return 0;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        if (_records.IsInside)
        {
            stall.Progress();
        }
        try
        {
            while (true)
            {
                int received = await transport.ReceiveAsync(buffer, receiving).ConfigureAwait(false);
                if (received >= 0)
                {
                    _records.Pass(buffer.Span[..received]);
                    return received;
                }
                await transport.WaitForDataAsync(receiving).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (receiving.IsCancellationRequested)
        {
            return 0;
        }
        finally
        {
            stall.Stop();
        }
    }
}
