namespace NbdKit.Filters.Sequential;

/// <summary>
/// A layer below that is read once, from its first byte to its last, as far as somebody needs it. One for all connections of an
/// export; safe for use by several threads.
/// </summary>
/// <remarks>
/// Reading goes on in a task of its own, as long as somebody waits for it: who gives up loses nothing, since what was read of a
/// source that cannot go back is kept, even if there was no space for it.
/// </remarks>
internal sealed class ForwardSource : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _stopping = new();
    private readonly ScratchDisk _disk;
    private NextContext? _next;
    private byte[]? _chunk;
    private int _chunkLength;
    private long _target;
    private Task? _reading;
    private TaskCompletionSource _progress = NewProgress();

    /// <param name="next">The prepared layer below, which this closes.</param>
    /// <param name="store">Where to keep what was read.</param>
    /// <param name="chunkBytes">
    /// How much to read at once, a multiple of the minimum block size; less if the maximum block size is.
    /// </param>
    public ForwardSource(NextContext next, ScratchStore store, int chunkBytes)
    {
        Info = next.Info;
        _disk = new ScratchDisk(store);
        _next = next;
        // One read for each chunk: if it came in pieces, those before one that failed would be read again.
        long most = Info.BlockSize.IsKnown ? Math.Min(chunkBytes, Info.BlockSize.Maximum) : chunkBytes;
        _chunk = new byte[Math.Min(most, Info.Size)];
    }

    /// <summary>What the layer below said.</summary>
    public NbdExportInfo Info { get; }

    /// <summary>What was read so far.</summary>
    public ScratchDisk Disk => _disk;

    /// <summary>Waits until everything before an offset was read.</summary>
    /// <param name="end">At most the size of the source.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <exception cref="NbdException">
    /// The source failed, or there is no space: who asks again goes on from there. Or the chain stops.
    /// </exception>
    public async ValueTask ReachAsync(long end, CancellationToken cancellationToken)
    {
        while (true)
        {
            Task? progress = Begin(end);
            if (progress is null)
            {
                return;
            }
            await progress.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Begins to read everything before an offset.</summary>
    /// <returns>What ends when some more was read, or null if there is nothing to do.</returns>
    /// <exception cref="NbdException">The chain stops.</exception>
    public Task? Begin(long end)
    {
        lock (_lock)
        {
            if (_disk.Length >= end)
            {
                return null;
            }
            if (_stopping.IsCancellationRequested)
            {
                throw new NbdException(NbdError.Shutdown, "the chain stops, and nothing more is read");
            }
            _target = Math.Max(_target, end);
            _reading ??= ReadAsync();
            return _progress.Task;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        Task? reading;
        lock (_lock)
        {
            reading = _reading;
        }
        if (reading is not null)
        {
            await reading.ConfigureAwait(false);
        }
        await CloseNextAsync().ConfigureAwait(false);
        await _disk.DisposeAsync().ConfigureAwait(false);
        _stopping.Dispose();
    }

    private async Task ReadAsync()
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        bool goesOn;
        bool isComplete;
        do
        {
            Exception? failure = null;
            try
            {
                await ReadChunkAsync().ConfigureAwait(false);
            }
            catch (Exception e)
            {
                // It is of those who wait.
                failure = e;
            }
            TaskCompletionSource progress;
            lock (_lock)
            {
                goesOn = failure is null && _disk.Length < _target && !_stopping.IsCancellationRequested;
                isComplete = _disk.Length == Info.Size;
                if (!goesOn && !isComplete)
                {
                    _target = 0;
                    _reading = null;
                }
                progress = _progress;
                _progress = NewProgress();
            }
            if (failure is null)
            {
                progress.SetResult();
            }
            else
            {
                progress.SetException(failure);
                // Perhaps nobody waits any more.
                _ = progress.Task.Exception;
            }
        }
        while (goesOn);
        if (isComplete)
        {
            // Nobody has to wait for it.
            await CloseNextAsync().ConfigureAwait(false);
        }
    }

    private async ValueTask ReadChunkAsync()
    {
        if (_chunkLength == 0)
        {
            int count = (int)Math.Min(_chunk!.Length, Info.Size - _disk.Length);
            await _next!.ReadAsync(_chunk.AsMemory(0, count), _disk.Length, _stopping.Token).ConfigureAwait(false);
            _chunkLength = count;
        }
        await _disk.AppendAsync(_chunk.AsMemory(0, _chunkLength), _stopping.Token).ConfigureAwait(false);
        _chunkLength = 0;
    }

    private async ValueTask CloseNextAsync()
    {
        NextContext? next = _next;
        _next = null;
        _chunk = null;
        if (next is not null)
        {
            await next.CloseAsync().ConfigureAwait(false);
        }
    }

    private static TaskCompletionSource NewProgress() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
