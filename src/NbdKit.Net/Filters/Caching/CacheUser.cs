namespace NbdKit.Filters.Caching;

/// <summary>
/// One context of the cache: the context of the layer below that it has, and who else works with that meanwhile.
/// </summary>
/// <remarks>
/// Whoever needs a context of the layer below outside the requests of its own, such as reclaim in the background, borrows
/// one from a connection that has one. So nothing is opened that no client asked for, and no client's data go through
/// another identity. Its connection does not end before it was given back.
/// </remarks>
internal sealed class CacheUser(NextContext next)
{
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<Exception?> _left = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private TaskCompletionSource? _idle;
    private int _borrowers;
    private bool _isLeaving;
    private int _hasWritten;

    public NextContext Next { get; } = next;

    public bool CanWrite => Next.Info.CanWrite;

    /// <summary>Whether the layer below takes flushes.</summary>
    public bool CanFlush => Next.Info is { CanFlush: true } or { CanFua: Support.Emulate };

    /// <summary>Notes that a change of the layer below through this context has completed.</summary>
    public void NoteWrite() => Volatile.Write(ref _hasWritten, 1);

    /// <summary>Flushes the layer below, for the changes that were made through this context.</summary>
    public async ValueTask FlushAsync(bool evenIfUnused, CancellationToken cancellationToken)
    {
        // Changes that complete while the flush runs need another one.
        if ((Interlocked.Exchange(ref _hasWritten, 0) == 0 && !evenIfUnused) || !CanFlush)
        {
            return;
        }
        try
        {
            await Next.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            NoteWrite();
            throw;
        }
    }

    /// <summary>Whether its connection ends; nobody borrows it any more.</summary>
    public bool IsLeaving
    {
        get
        {
            lock (_lock)
            {
                return _isLeaving;
            }
        }
    }

    /// <summary>How its last flush went, once its connection has ended.</summary>
    public Task<Exception?> Left => _left.Task;

    /// <summary>Keeps it from ending until it is given back; false if it is about to end.</summary>
    public bool TryBorrow()
    {
        lock (_lock)
        {
            _borrowers += _isLeaving ? 0 : 1;
            return !_isLeaving;
        }
    }

    public void GiveBack()
    {
        lock (_lock)
        {
            if (--_borrowers == 0)
            {
                _idle?.TrySetResult();
            }
        }
    }

    /// <summary>Lets nobody borrow it any more.</summary>
    public void BeginLeaving()
    {
        lock (_lock)
        {
            _isLeaving = true;
        }
    }

    /// <summary>Completes when nobody has borrowed it any more.</summary>
    public Task WaitForBorrowersAsync()
    {
        lock (_lock)
        {
            if (_borrowers == 0)
            {
                return Task.CompletedTask;
            }
            _idle ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            return _idle.Task;
        }
    }

    /// <summary>Tells those who wait for its last flush how that went.</summary>
    public void EndLeaving(Exception? failure) => _left.SetResult(failure);
}
