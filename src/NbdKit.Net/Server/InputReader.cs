using System.Buffers;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>
/// What a client sends, buffered so that one receive brings many messages. Used by one task at a time.
/// </summary>
/// <remarks>
/// Bytes are handed out in place: who keeps them beyond the next call holds the <see cref="Slab"/> they lie in. A connection
/// that waits for its next message holds no buffer. Every method here may wait for each message: over transports that complete
/// later that must cost no object.
/// </remarks>
internal sealed class InputReader(Transport transport, SlabPool pool, StallClock stall)
{
    // With large writes most of a big receive would be payload that has to be copied out again: headers are received in
    // small pieces then, and the payload goes straight to its own memory.
    private const int SmallReceive = 4 << 10;

    // What has come of a message is copied for the time of a wait up to this size.
    private const int MostKept = 64 << 10;

    private Slab? _slab;
    private int _start;
    private int _end;

    /// <summary>The number of bytes received and not yet consumed.</summary>
    public int Count => _end - _start;

    /// <summary>The bytes received and not yet consumed.</summary>
    public ReadOnlyMemory<byte> Buffered => _slab is null ? default : _slab.Memory[_start.._end];

    /// <summary>The slab that <see cref="Buffered"/> lies in.</summary>
    public Slab Slab => _slab!;

    /// <summary>Called before a wait of unknown length: an idle connection holds no memory.</summary>
    public Action? WhenIdle { get; set; }

    /// <summary>Set while the payloads that arrive are large.</summary>
    public bool ExpectLargePayload { get; set; }

    /// <summary>
    /// Set while it is not known yet who asks: what has come of a message then waits for the rest in as little memory as it needs.
    /// Later time is dearer, unless many wait like that.
    /// </summary>
    public bool IsFrugal { get; set; } = true;

    private bool SavesMemory => IsFrugal || pool.IsShort;

    public void Advance(int count) => _start += count;

    /// <summary>Receives until at least <paramref name="needed"/> bytes are there; false if the client ended before the first.</summary>
    /// <exception cref="ConnectionEndedException">The client ended inside the message.</exception>
    public ValueTask<bool> FillAsync(int needed, CancellationToken cancellationToken)
        => FillAsync(needed, inside: false, cancellationToken);

    /// <summary>Receives until at least <paramref name="needed"/> bytes are there, of a message that has begun before.</summary>
    /// <exception cref="ConnectionEndedException">The client ended.</exception>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask FillInsideAsync(int needed, CancellationToken cancellationToken)
    {
        if (!await FillAsync(needed, inside: true, cancellationToken).ConfigureAwait(false))
        {
            throw Truncated();
        }
    }

    /// <summary>Fills a buffer of the caller's: first with what is here, then straight from the client.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadExactlyAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int here = Math.Min(Count, buffer.Length);
        Buffered[..here].CopyTo(buffer);
        Advance(here);
        buffer = buffer[here..];
        if (SavesMemory && buffer.Length > 0)
        {
            ReleaseSlab();
        }
        stall.Progress();
        while (buffer.Length > 0)
        {
            int received = await ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
            if (received == 0)
            {
                throw Truncated();
            }
            if (received > 0)
            {
                stall.Progress();
                buffer = buffer[received..];
            }
        }
        stall.Stop();
    }

    /// <summary>Fills lent memory: first with what is here, then straight from the client.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadExactlyAsync(Loan loan, CancellationToken cancellationToken)
    {
        int position = 0;
        while (Count > 0 && position < loan.Length)
        {
            Span<byte> piece = loan.PieceAt(position).Span;
            int here = Math.Min(Count, piece.Length);
            Buffered.Span[..here].CopyTo(piece);
            Advance(here);
            position += here;
        }
        stall.Progress();
        while (position < loan.Length)
        {
            int received;
            try
            {
                received = await transport.ReceiveAsync(loan, position, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (IsTransportFault(e))
            {
                throw Lost(e);
            }
            if (received == 0)
            {
                throw Truncated();
            }
            if (received > 0)
            {
                stall.Progress();
                position += received;
            }
        }
        stall.Stop();
    }

    /// <summary>Throws away the next bytes.</summary>
    public async ValueTask SkipAsync(long count, CancellationToken cancellationToken)
    {
        while (count > 0)
        {
            if (Count == 0)
            {
                await FillInsideAsync(1, cancellationToken).ConfigureAwait(false);
            }
            int here = (int)Math.Min(Count, count);
            Advance(here);
            count -= here;
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<bool> FillAsync(int needed, bool inside, CancellationToken cancellationToken)
    {
        bool running = false;
        while (Count < needed)
        {
            if (Count == 0 && !inside)
            {
                stall.Stop();
                if (!transport.IsBusy)
                {
                    ReleaseSlab();
                    WhenIdle?.Invoke();
                }
                try
                {
                    await transport.WaitForDataAsync(cancellationToken).ConfigureAwait(false);
                }
                catch (Exception e) when (IsTransportFault(e))
                {
                    throw Lost(e);
                }
            }
            else if (!running)
            {
                stall.Progress();
                running = true;
            }
            if (SavesMemory && Count <= MostKept && (Count > 0 || inside))
            {
                await WaitFrugallyAsync(cancellationToken).ConfigureAwait(false);
            }
            Slab slab = MakeRoom(needed);
            int room = ExpectLargePayload ? Math.Max(SmallReceive, needed - Count) : Slab.Size;
            Memory<byte> free = slab.Memory[_end..];
            int received = await ReceiveAsync(free[..Math.Min(free.Length, room)], cancellationToken).ConfigureAwait(false);
            if (received == 0)
            {
                return Count == 0 ? false : throw Truncated();
            }
            if (received > 0)
            {
                // Only bytes stop the clock of a message that has begun, not the transport's own pauses.
                running = false;
                _end += received;
            }
        }
        stall.Stop();
        return true;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WaitFrugallyAsync(CancellationToken cancellationToken)
    {
        int count = Count;
        byte[] kept = ArrayPool<byte>.Shared.Rent(count);
        try
        {
            Buffered.CopyTo(kept);
            ReleaseSlab();
            WhenIdle?.Invoke();
            await transport.WaitForDataAsync(cancellationToken).ConfigureAwait(false);
            kept.AsMemory(0, count).CopyTo(MakeRoom(count).Memory);
            _end = count;
        }
        catch (Exception e) when (IsTransportFault(e))
        {
            throw Lost(e);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(kept);
        }
    }

    /// <summary>Before something that may take its time: an empty buffer is given back, and what was handed out of it with it.</summary>
    public void Rest()
    {
        if (Count == 0)
        {
            ReleaseSlab();
        }
    }

    /// <summary>Gives the buffer back; nothing may be read afterwards.</summary>
    public void Close()
    {
        _start = _end;
        ReleaseSlab();
    }

    private Slab MakeRoom(int needed)
    {
        if (_slab is null)
        {
            _slab = pool.Rent();
            _start = _end = 0;
        }
        else if (Count == 0 && _slab.IsSole)
        {
            _start = _end = 0;
        }
        else if (Slab.Size - _start < needed || _end == Slab.Size)
        {
            // What is left of the last message moves to the front: of this slab if nobody else holds it, else of a new one.
            Slab target = _slab.IsSole ? _slab : pool.Rent();
            int count = Count;
            _slab.Memory[_start.._end].CopyTo(target.Memory);
            if (target != _slab)
            {
                _slab.Release();
            }
            _slab = target;
            _start = 0;
            _end = count;
        }
        return _slab;
    }

    private void ReleaseSlab()
    {
        _slab?.Release();
        _slab = null;
        _start = _end = 0;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        try
        {
            return await transport.ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (IsTransportFault(e))
        {
            throw Lost(e);
        }
    }

    private static bool IsTransportFault(Exception e)
        => e is IOException or SocketException or ObjectDisposedException or InvalidOperationException;

    private static ConnectionEndedException Lost(Exception e)
        => new(NbdDisconnectReason.ConnectionLost, "the connection was lost while receiving", e);

    private static ConnectionEndedException Truncated()
        => new(NbdDisconnectReason.ConnectionLost, "the client closed the connection inside a message");
}
