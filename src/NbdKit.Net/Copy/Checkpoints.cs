using System.Runtime.CompilerServices;

namespace NbdKit.Copy;

/// <summary>Decides when the destination is flushed for the journal, and which ranges that flush makes certain.</summary>
internal sealed class Checkpoints(CopyJournal journal, ContextTarget target, NbdCopyOptions options)
{
    private static readonly TimeSpan LastChance = TimeSpan.FromSeconds(10);

    private readonly Lock _lock = new();
    private RangeSet _pending = new();
    private long _pendingBytes;
    private long _last = options.TimeProvider.GetTimestamp();
    private int _busy;
    private volatile bool _flushFailed;

    /// <summary>Notes that a piece was written; brings the journal up to date if that is due.</summary>
    public ValueTask AddAsync(in CopyPiece piece, CancellationToken stop)
    {
        if (piece.IsCopied)
        {
            return default;
        }
        lock (_lock)
        {
            _pending.Add(piece.Offset, piece.Length);
            _pendingBytes += piece.Length;
            if (_pendingBytes < options.JournalBytes
                && options.TimeProvider.GetElapsedTime(_last) < options.JournalInterval)
            {
                return default;
            }
        }
        return Interlocked.Exchange(ref _busy, 1) != 0 ? default : SaveAndLeaveAsync(stop);
    }

    /// <summary>
    /// Brings the journal up to date when the copy has failed or was cancelled. If that does not work, or takes long, it stays
    /// as it is, and more is copied again next time.
    /// </summary>
    public async ValueTask SaveAtEndAsync()
    {
        if (_flushFailed || _pending.IsEmpty)
        {
            return;
        }
        try
        {
            await SaveAsync(new CancellationToken(canceled: true)).ConfigureAwait(false);
        }
        catch (NbdCopyException)
        {
            // There is a failure to report already, and this one costs time only.
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask SaveAndLeaveAsync(CancellationToken stop)
    {
        try
        {
            await SaveAsync(stop).ConfigureAwait(false);
        }
        finally
        {
            Volatile.Write(ref _busy, 0);
        }
    }

    /// <param name="stop">From when it fires on a flush is given a limited time.</param>
    private async ValueTask SaveAsync(CancellationToken stop)
    {
        // A flush covers what was complete when it began, and nothing else.
        RangeSet covered;
        lock (_lock)
        {
            covered = _pending;
            _pending = new RangeSet();
            _pendingBytes = 0;
            _last = options.TimeProvider.GetTimestamp();
        }
        // A flush that is given up may fail unheard, and the next one succeed although data was lost: so this one is not.
        using var patience = new CancellationTokenSource(Timeout.InfiniteTimeSpan, options.TimeProvider);
        using CancellationTokenRegistration stopping = stop.UnsafeRegister(
            static patience => ((CancellationTokenSource)patience!).CancelAfter(LastChance), patience);
        try
        {
            await target.FlushAsync(patience.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // After a failed flush a later one that succeeds proves nothing about these ranges.
            _flushFailed = true;
            throw CopyRun.FlushFailure(e);
        }
        if (!covered.IsEmpty)
        {
            journal.Append(covered);
        }
    }
}
