using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

// Making room: in the background above the high mark, and within a request when there is no slot left or the store is full.
internal sealed partial class CacheImage
{
    // More blocks than this are not looked at for one that nobody uses.
    private const int Candidates = 64;

    private Task _reclaiming = Task.CompletedTask;
    private bool _isStopping;

    /// <summary>Completes when the work in the background, if there is any, has done what it could.</summary>
    public Task Reclaiming
    {
        get
        {
            lock (_lock)
            {
                return _reclaiming;
            }
        }
    }

    /// <summary>Ends the work in the background for good.</summary>
    public Task StopAsync()
    {
        lock (_lock)
        {
            _isStopping = true;
            return _reclaiming;
        }
    }

    private void ReclaimIfNeeded()
    {
        if (_index.Used <= _highMark)
        {
            return;
        }
        lock (_lock)
        {
            if (_reclaiming.IsCompleted && !_isStopping)
            {
                _reclaiming = Task.Run(ReclaimAsync);
            }
        }
    }

    private async Task ReclaimAsync()
    {
        while (_index.Used > _lowMark && !Volatile.Read(ref _isStopping))
        {
            if (_index.DropOldest(_index.Used - _lowMark, _locks) > 0)
            {
                continue;
            }
            // For one piece at a time, so that a connection that ends is not kept waiting.
            CacheUser? writer = Borrow();
            try
            {
                if (writer is null || !await WriteOldestAsync(writer, CancellationToken.None).ConfigureAwait(false))
                {
                    return;
                }
            }
            finally
            {
                writer?.GiveBack();
            }
        }
    }

    /// <summary>Frees slots without waiting for anybody's blocks.</summary>
    private async ValueTask<bool> MakeRoomAsync(CacheUser? writer, int count, CancellationToken cancellationToken)
        => _index.DropOldest(count, _locks) > 0
            || (writer is not null && await WriteOldestAsync(writer, cancellationToken).ConfigureAwait(false));

    /// <summary>Writes the oldest changed block that nobody uses below, with its neighbours, and drops them.</summary>
    private async ValueTask<bool> WriteOldestAsync(CacheUser writer, CancellationToken cancellationToken)
    {
        for (int skip = 0; skip < Candidates; skip++)
        {
            long block = _index.OldestChanged(skip);
            if (block < 0)
            {
                return false;
            }
            if (_index.Run(block, Math.Min(Blocks, block + _piece), out long end) != BlockState.Changed)
            {
                continue;
            }
            RangeLock.Holder? held = _locks.TryEnter(block, end, exclusive: true);
            if (held is null)
            {
                end = block + 1;
                held = _locks.TryEnter(block, end, exclusive: true);
            }
            if (held is null)
            {
                continue;
            }
            using (held)
            {
                try
                {
                    await WriteHeldAsync(writer, block, end, cancellationToken).ConfigureAwait(false);
                }
                catch (Exception) when (!cancellationToken.IsCancellationRequested)
                {
                    // They stay as they are, and whoever flushes is told.
                    return false;
                }
                _index.Drop(block, end, unchangedOnly: true);
                return true;
            }
        }
        return false;
    }
}
