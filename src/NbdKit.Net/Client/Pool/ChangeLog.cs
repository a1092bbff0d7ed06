namespace NbdKit.Client.Pool;

/// <summary>
/// Which changes a flush has to wait for, on whatever connection they are, and whether acknowledged ones may have been lost.
/// </summary>
internal sealed class ChangeLog
{
    private readonly Lock _lock = new();
    private readonly List<Batch> _open = [];
    private Batch _current = new();
    private long _acknowledged;
    private long _flushed;
    private bool _lost;

    /// <summary>A change is about to be made.</summary>
    public Batch Begin()
    {
        lock (_lock)
        {
            _current.Running++;
            return _current;
        }
    }

    /// <summary>A change was answered, or failed.</summary>
    public void End(Batch batch, bool needsFlush)
    {
        lock (_lock)
        {
            if (needsFlush)
            {
                _acknowledged++;
            }
            if (--batch.Running == 0 && batch.Ended is { } ended)
            {
                _open.Remove(batch);
                ended.TrySetResult();
            }
        }
    }

    /// <summary>Waits until every change that has begun by now has ended; returns what a flush then covers.</summary>
    public async ValueTask<long> SettleAsync(CancellationToken cancellationToken)
    {
        Task[] waits;
        lock (_lock)
        {
            if (_current.Running > 0)
            {
                _current.Ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                _open.Add(_current);
                _current = new Batch();
            }
            waits = [.. _open.Select(batch => batch.Ended!.Task)];
        }
        await Task.WhenAll(waits).WaitAsync(cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            return _acknowledged;
        }
    }

    public void Flushed(long covered)
    {
        lock (_lock)
        {
            _flushed = Math.Max(_flushed, covered);
        }
    }

    /// <summary>A connection was lost, and with it perhaps what its server had not flushed.</summary>
    public void Lose()
    {
        lock (_lock)
        {
            _lost |= _acknowledged > _flushed;
        }
    }

    /// <summary>Whether something may have been lost since this was asked last.</summary>
    public bool TakeLoss()
    {
        lock (_lock)
        {
            bool lost = _lost;
            if (lost)
            {
                _lost = false;
                _flushed = _acknowledged;
            }
            return lost;
        }
    }

    /// <summary>Changes that one flush waits for.</summary>
    internal sealed class Batch
    {
        public int Running { get; set; }

        public TaskCompletionSource? Ended { get; set; }
    }
}
