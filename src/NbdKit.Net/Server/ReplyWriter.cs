using System.Threading.Tasks.Sources;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>
/// The only writer of a connection's output. Replies are staged in slabs without a lock by the receiving loop, queued whole by
/// requests that finish elsewhere, and sent by one loop, which sends everything that is there with as few calls as possible.
/// </summary>
/// <remarks>
/// The members of the first part belong to the receiving loop alone. Nothing is ever sent in halves: a segment holds whole
/// replies, and once its sending began only the end of the connection stops it.
/// </remarks>
internal sealed class ReplyWriter(
    Transport transport, SlabPool pool, PayloadArrays payloads, ObjectPool<Loan> loans, FlowBudget budget, StallClock stall) : IValueTaskSource
{
    // As much is worth a system call of its own while the loop goes on with the next requests.
    private const int FlushThreshold = 128 << 10;

    // Larger replies are worth a system call of their own.
    private const int GatherBytes = 8 << 10;

    // What a reply costs beside its bytes: its place in the queue, of which up to half are free. Replies of a few bytes that nobody takes
    // would else hold many times what they count.
    private const int PlaceBytes = 96;

    // So many places an idle connection may keep.
    private const int KeptPlaces = 1024;

    private readonly Lock _lock = new();
    private readonly Queue<ReplySegment> _queue = new();
    private ManualResetValueTaskSourceCore<bool> _wake;
    private bool _idle;
    private bool _closed;
    private bool _failed;
    private Slab? _slab;
    private int _from;
    private int _to;
    private Slab? _sharedSlab;
    private int _sharedUsed;

    // ---- the receiving loop ----

    /// <summary>Room for one reply after what is staged; becomes part of it with <see cref="Commit"/>.</summary>
    public Memory<byte> Reserve(int size)
    {
        if (_from == _to && _to > 0 && _slab is { IsSole: true })
        {
            // All of it is sent: the same memory again, which the processor still has at hand.
            _from = _to = 0;
        }
        if (_slab is null || Slab.Size - _to < size)
        {
            Publish();
            // If there is none, the stage keeps what it has.
            Slab next = pool.Rent();
            _slab?.Release();
            _slab = next;
            _from = _to = 0;
        }
        return _slab.Memory.Slice(_to, size);
    }

    /// <summary>The reply that was reserved last is complete.</summary>
    public void Commit(int size)
    {
        _to += size;
        if (_to - _from >= FlushThreshold)
        {
            Flush();
        }
    }

    /// <summary>The reply that was reserved last will be complete later: its memory leaves the stage.</summary>
    public ReplySegment Detach(int size)
    {
        Publish();
        _slab!.Hold();
        ReplySegment segment = ReplySegment.In(_slab, _slab.Memory.Slice(_to, size));
        _from = _to += size;
        return segment;
    }

    /// <summary>Sends what is staged.</summary>
    public void Flush()
    {
        Publish();
        Wake();
    }

    /// <summary>Queues a reply of the loop's own that lies elsewhere, behind what is staged.</summary>
    public void Queue(ReplySegment segment)
    {
        Publish();
        Enqueue(segment);
        // Before it is sent, which may begin, and take its time, in the next call: the queue counts it from now on.
        budget.Settle();
        Wake();
    }

    /// <summary>Gives up the stage while there is nothing to put on it: an idle connection holds no memory.</summary>
    public void Rest()
    {
        Publish();
        _slab?.Release();
        _slab = null;
    }

    private void Publish()
    {
        if (_to > _from)
        {
            _slab!.Hold();
            Enqueue(ReplySegment.In(_slab, _slab.Memory[_from.._to]));
            _from = _to;
        }
    }

    // ---- requests that finish elsewhere ----

    /// <summary>Queues a complete reply and sees that it is sent.</summary>
    /// <param name="segment">The reply.</param>
    /// <param name="counted">The bytes of the budget that were taken for it; the queue counts it from now on.</param>
    public void Post(ReplySegment segment, int counted = 0)
    {
        Enqueue(segment);
        if (counted > 0)
        {
            budget.Give(counted);
        }
        Wake();
    }

    /// <summary>Room for a small reply that will be posted.</summary>
    public ReplySegment ReserveShared(int size, out Memory<byte> memory)
    {
        lock (_lock)
        {
            if (_failed)
            {
                // Nobody will send it, and nobody would give a shared slab back.
                Slab own = pool.Rent();
                memory = own.Memory[..size];
                return ReplySegment.In(own, memory);
            }
            if (_sharedSlab is null || Slab.Size - _sharedUsed < size)
            {
                Slab next = pool.Rent();
                _sharedSlab?.Release();
                _sharedSlab = next;
                _sharedUsed = 0;
            }
            memory = _sharedSlab.Memory.Slice(_sharedUsed, size);
            _sharedUsed += size;
            _sharedSlab.Hold();
            return ReplySegment.In(_sharedSlab, memory);
        }
    }

    // ---- sending ----

    /// <summary>Sends until the writer is closed and empty. Ends the connection with an exception if the client takes no more.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        transport.Progressed = stall.Progress;
        try
        {
            while (true)
            {
                if (TryDequeue(out ReplySegment segment, out bool closed))
                {
                    try
                    {
                        segment = Gather(segment);
                        stall.Progress();
                        await (segment.Loan is null
                            ? transport.SendAsync(segment.Bytes, cancellationToken)
                            : transport.SendAsync(segment.Bytes, segment.Loan, cancellationToken)).ConfigureAwait(false);
                    }
                    finally
                    {
                        Release(segment);
                    }
                    continue;
                }
                stall.Stop();
                if (closed)
                {
                    return;
                }
                await new ValueTask(this, _wake.Version).ConfigureAwait(false);
            }
        }
        finally
        {
            Fail();
        }
    }

    /// <summary>
    /// Replies of requests that finished elsewhere lie scattered: small ones that wait behind each other are copied together,
    /// which costs less than a system call for each.
    /// </summary>
    private ReplySegment Gather(ReplySegment first)
    {
        if (!IsSmall(first))
        {
            return first;
        }
        lock (_lock)
        {
            if (!_queue.TryPeek(out ReplySegment next) || !IsSmall(next))
            {
                return first;
            }
            Slab slab = pool.Rent();
            // What was put together is one reply again.
            budget.Take(PlaceBytes);
            int length = Move(first, slab, 0);
            while (length < FlushThreshold && _queue.TryPeek(out next) && IsSmall(next))
            {
                length += Move(_queue.Dequeue(), slab, length);
            }
            return ReplySegment.In(slab, slab.Memory[..length]);
        }
    }

    private static bool IsSmall(ReplySegment segment) => segment.Loan is null && segment.Length <= GatherBytes;

    private int Move(ReplySegment segment, Slab slab, int position)
    {
        segment.Bytes.CopyTo(slab.Memory[position..]);
        int length = segment.Length;
        int rest = segment.Held - length;
        segment.Release(payloads);
        budget.Give(rest + PlaceBytes);
        return length;
    }

    /// <summary>Lets <see cref="RunAsync"/> end once everything is sent.</summary>
    public void Close()
    {
        Rest();
        lock (_lock)
        {
            _closed = true;
        }
        Wake();
    }

    private void Fail()
    {
        lock (_lock)
        {
            _failed = true;
            while (_queue.TryDequeue(out ReplySegment segment))
            {
                Release(segment);
            }
            _sharedSlab?.Release();
            _sharedSlab = null;
        }
    }

    private void Release(ReplySegment segment)
    {
        int held = segment.Held;
        segment.Release(payloads);
        if (segment.Loan is not null)
        {
            loans.Return(segment.Loan);
        }
        budget.Give(held + PlaceBytes);
    }

    private void Enqueue(ReplySegment segment)
    {
        lock (_lock)
        {
            if (!_failed)
            {
                budget.Take(segment.Held + PlaceBytes);
                _queue.Enqueue(segment);
                return;
            }
        }
        segment.Release(payloads);
        if (segment.Loan is not null)
        {
            loans.Return(segment.Loan);
        }
    }

    private bool TryDequeue(out ReplySegment segment, out bool closed)
    {
        lock (_lock)
        {
            // Asked in the same breath: what is queued before the end is sent before it.
            closed = _closed;
            if (_queue.TryDequeue(out segment))
            {
                return true;
            }
            if (_sharedSlab is not null)
            {
                // An idle connection holds no memory.
                _sharedSlab.Release();
                _sharedSlab = null;
            }
            if (_queue.Capacity > KeptPlaces)
            {
                _queue.TrimExcess(KeptPlaces);
            }
            if (!_closed)
            {
                _wake.Reset();
                _idle = true;
            }
            return false;
        }
    }

    private void Wake()
    {
        lock (_lock)
        {
            if (!_idle || (_queue.Count == 0 && !_closed))
            {
                return;
            }
            _idle = false;
        }
        // Runs the sending loop right here until it has to wait: no hop for a client that takes its replies.
        _wake.SetResult(true);
    }

    void IValueTaskSource.GetResult(short token) => _wake.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _wake.GetStatus(token);

    void IValueTaskSource.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        => _wake.OnCompleted(continuation, state, token, flags);
}
