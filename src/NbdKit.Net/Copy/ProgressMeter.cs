namespace NbdKit.Copy;

/// <summary>Reports how far a copy is, not too often and one call at a time.</summary>
internal sealed class ProgressMeter
{
    private readonly Action<NbdCopyProgress>? _report;
    private readonly TimeProvider _time;
    private readonly long _interval;
    private readonly long _start;
    private readonly Lock _lock = new();
    private long _last;

    public ProgressMeter(NbdCopyOptions options, long start)
    {
        _report = options.Progress;
        _time = options.TimeProvider;
        _interval = (long)(options.ProgressInterval.TotalSeconds * _time.TimestampFrequency);
        _start = start;
        _last = start;
    }

    /// <summary>Reports if it is time to.</summary>
    public void Tell(CopyCounters counters, long? total, bool isVerifying)
    {
        if (_report is null || _time.GetTimestamp() - Volatile.Read(ref _last) < _interval || !_lock.TryEnter())
        {
            return;
        }
        try
        {
            long now = _time.GetTimestamp();
            if (now - _last >= _interval)
            {
                Volatile.Write(ref _last, now);
                _report(Progress(counters, total, isVerifying, now));
            }
        }
        finally
        {
            _lock.Exit();
        }
    }

    /// <summary>Reports the end.</summary>
    public void TellEnd(CopyCounters counters, long? total, bool isVerifying)
    {
        if (_report is not null)
        {
            lock (_lock)
            {
                _report(Progress(counters, total, isVerifying, _time.GetTimestamp()));
            }
        }
    }

    private NbdCopyProgress Progress(CopyCounters counters, long? total, bool isVerifying, long now)
        => new(counters.Done, total, _time.GetElapsedTime(_start, now), isVerifying);
}
