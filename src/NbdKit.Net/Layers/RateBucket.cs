namespace NbdKit.Layers;

/// <summary>
/// A token bucket: fills at a rate, holds what comes in a given time, and is empty at first. Several flows that wait for it get
/// the same share, whatever each of them asks for; within a flow it is first come, first served.
/// </summary>
/// <remarks>
/// The share is kept by start-time fair queuing: each flow has a clock that advances by what it takes, and the one that is
/// furthest behind is next. All arithmetic is in whole numbers: a token is one bit, counted in units of the clock's frequency.
/// </remarks>
internal sealed class RateBucket(TimeProvider time, long rate, TimeSpan burst) : IDisposable
{
    private readonly Lock _lock = new();
    // The flows that somebody waits in, in the order of their turns.
    private readonly List<Flow> _waiting = [];
    private long _rate = rate;
    private TimeSpan _burst = burst;
    private Int128 _level;
    private Int128 _clock;
    private long _filled = time.GetTimestamp();
    private ITimer? _timer;

    private Int128 Capacity => Units(_burst) * _rate;

    /// <summary>Changes the rate, in bits a second, and how much may be saved up; who waits is served accordingly.</summary>
    public void Change(long rate, TimeSpan burst)
    {
        lock (_lock)
        {
            Fill();
            Volatile.Write(ref _rate, rate);
            _burst = burst;
            _level = Int128.Min(_level, Capacity);
            Serve();
        }
    }

    /// <summary>Takes tokens if they are there and nobody waits for any.</summary>
    public bool TryTake(Flow flow, long bits)
    {
        if (Volatile.Read(ref _rate) == 0)
        {
            return true;
        }
        lock (_lock)
        {
            Fill();
            if (_waiting.Count > 0 || !Suffices(bits))
            {
                return false;
            }
            flow.Clock = Int128.Max(flow.Clock, _clock);
            Take(flow, bits);
            return true;
        }
    }

    /// <summary>Takes tokens as soon as it is the flow's turn and they are there.</summary>
    public ValueTask TakeAsync(Flow flow, long bits, CancellationToken cancellationToken)
    {
        if (TryTake(flow, bits))
        {
            return default;
        }
        var waiter = new Waiter(bits);
        lock (_lock)
        {
            if (flow.Waiters.Count == 0)
            {
                flow.Clock = Int128.Max(flow.Clock, _clock);
                _waiting.Add(flow);
            }
            flow.Waiters.AddLast(waiter);
            Fill();
            Serve();
        }
        return WaitAsync(flow, waiter, cancellationToken);
    }

    /// <summary>Gives back what was taken and not used.</summary>
    public void Return(long bits)
    {
        lock (_lock)
        {
            Fill();
            _level = Int128.Min(_level + Cost(bits), Capacity);
            Serve();
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _timer?.Dispose();
        }
    }

    private async ValueTask WaitAsync(Flow flow, Waiter waiter, CancellationToken cancellationToken)
    {
        try
        {
            await waiter.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            GiveUp(flow, waiter);
            throw;
        }
    }

    private void GiveUp(Flow flow, Waiter waiter)
    {
        lock (_lock)
        {
            if (!flow.Waiters.Remove(waiter))
            {
                Return(waiter.Bits);
                return;
            }
            if (flow.Waiters.Count == 0)
            {
                _waiting.Remove(flow);
            }
            Fill();
            Serve();
        }
    }

    /// <summary>Serves those whose turn it is while the tokens last, and sets the timer for the next one.</summary>
    private void Serve()
    {
        while (_waiting.Count > 0)
        {
            Flow flow = _waiting.MinBy(flow => flow.Clock)!;
            Waiter waiter = flow.Waiters.First!.Value;
            if (!Suffices(waiter.Bits))
            {
                SetTimer(Int128.Min(Cost(waiter.Bits), Capacity) - _level);
                return;
            }
            Take(flow, waiter.Bits);
            flow.Waiters.RemoveFirst();
            _waiting.Remove(flow);
            if (flow.Waiters.Count > 0)
            {
                // Behind those that are just as far.
                _waiting.Add(flow);
            }
            waiter.TrySetResult();
        }
        _timer?.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    private bool Suffices(long bits) => _rate == 0 || _level >= Int128.Min(Cost(bits), Capacity);

    // What is larger than the bucket takes a full one, and leaves a debt.
    private void Take(Flow flow, long bits)
    {
        _clock = flow.Clock;
        flow.Clock += bits;
        if (_rate != 0)
        {
            _level -= Cost(bits);
        }
    }

    private void Fill()
    {
        long now = time.GetTimestamp();
        _level = Int128.Min(_level + ((Int128)Math.Max(now - _filled, 0) * _rate), Capacity);
        _filled = now;
    }

    private void SetTimer(Int128 missing)
    {
        // Rounded up to the whole milliseconds that timers count in.
        Int128 perMillisecond = (Int128)_rate * time.TimestampFrequency;
        Int128 milliseconds = ((missing * 1000) + perMillisecond - 1) / perMillisecond;
        TimeSpan due = milliseconds < (long)TimerRange.Longest.TotalMilliseconds
            ? TimeSpan.FromMilliseconds((long)milliseconds)
            : TimerRange.Longest;
        if (_timer is null)
        {
            _timer = time.CreateTimer(_ => OnTimer(), null, due, Timeout.InfiniteTimeSpan);
        }
        else
        {
            _timer.Change(due, Timeout.InfiniteTimeSpan);
        }
    }

    private void OnTimer()
    {
        lock (_lock)
        {
            Fill();
            Serve();
        }
    }

    private Int128 Cost(long bits) => (Int128)bits * time.TimestampFrequency;

    private Int128 Units(TimeSpan span) => (Int128)span.Ticks * time.TimestampFrequency / TimeSpan.TicksPerSecond;

    /// <summary>One of those that share the bucket, such as a connection. Belongs to one bucket.</summary>
    internal sealed class Flow
    {
        internal Int128 Clock { get; set; }

        internal LinkedList<Waiter> Waiters { get; } = [];
    }

    internal sealed class Waiter(long bits) : TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public long Bits { get; } = bits;
    }
}
