using NbdKit.Layers;

namespace NbdKit.Filters.Ahead;

// The work in the background.
internal sealed partial class ReadaheadStream
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Func<CancellationToken, ValueTask<NextContext>>? _open;
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Task<NextContext>? _own;
    private int _fills;
    private bool _isStopped;

    /// <summary>Ends the work in the background, and closes what was opened for it.</summary>
    public async ValueTask StopAsync()
    {
        _group.Remove(this);
        lock (_group.Lock)
        {
            _isStopped = true;
            Forget(0, long.MaxValue);
            if (_fills == 0)
            {
                _idle.TrySetResult();
            }
        }
        await _stop.CancelAsync().ConfigureAwait(false);
        await _idle.Task.ConfigureAwait(false);
        if (_own is { IsCompletedSuccessfully: true } own)
        {
            NextContext context = await own.ConfigureAwait(false);
            await context.CloseAsync().ConfigureAwait(false);
        }
        _stop.Dispose();
    }

    /// <summary>Begins to read what the window has room for; the caller holds the lock.</summary>
    private void ReadAhead()
    {
        if (_isStopped || _group.IsWriting || _own is { IsFaulted: true } or { IsCanceled: true })
        {
            return;
        }
        long size = _next.Info.Size;
        long start = Math.Max(_ahead, _position);
        long unit = Math.Max(1, _next.Info.BlockSize.Minimum);
        long end = size - _position > _window ? (_position + _window) / unit * unit : size;
        // In large pieces, and not a little with each read.
        if (end - start < Math.Min(_window / 2, size - start))
        {
            return;
        }
        while (start < end)
        {
            var chunk = new ReadaheadChunk(start, (int)Math.Min(end - start, ChunkBytes));
            _chunks.Add(chunk);
            _fills++;
            // The request that is running must not wait for this, not even for its beginning.
            _ = Task.Run(() => FillAsync(chunk));
            start = chunk.End;
        }
        _ahead = start;
    }

    private async Task FillAsync(ReadaheadChunk chunk)
    {
        bool isFilled = false;
        try
        {
            NextContext context = await ContextAsync().ConfigureAwait(false);
            await context.ReadInPiecesAsync(chunk.Memory, chunk.Offset, _stop.Token).ConfigureAwait(false);
            isFilled = true;
        }
        catch (Exception)
        {
            // The client's own read meets the error, if it is still there.
        }
        lock (_group.Lock)
        {
            if (!isFilled)
            {
                _window = Math.Min(_window, FirstWindow);
                if (_chunks.Remove(chunk))
                {
                    chunk.LetGo();
                }
            }
        }
        chunk.Complete(isFilled);
        chunk.LetGo();
        lock (_group.Lock)
        {
            if (--_fills == 0 && _isStopped)
            {
                _idle.TrySetResult();
            }
        }
    }

    private ValueTask<NextContext> ContextAsync()
    {
        if (_open is null)
        {
            return new(_next);
        }
        lock (_group.Lock)
        {
            _own ??= Task.Run(async () => await _open(_stop.Token).ConfigureAwait(false));
            return new(_own);
        }
    }
}
