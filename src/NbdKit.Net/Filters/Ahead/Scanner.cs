namespace NbdKit.Filters.Ahead;

/// <summary>The scan of one export: runs while it has users, one walk at a time.</summary>
internal sealed class Scanner(ScanFilter filter, NbdBackend backend, string exportName)
{
    private static readonly TimeSpan LongestDelay = TimeSpan.FromDays(1);

    private readonly Lock _lock = new();
    private CancellationTokenSource? _stop;
    private Task _walk = Task.CompletedTask;
    private long _position;
    private int _users;

    /// <summary>Completes when the walk has ended.</summary>
    public Task Walk
    {
        get
        {
            lock (_lock)
            {
                return _walk;
            }
        }
    }

    public void Enter()
    {
        lock (_lock)
        {
            if (_users++ == 0 || _walk.IsCompleted)
            {
                // After the one before, which may be on its way out.
                Task before = _walk;
                var stop = new CancellationTokenSource();
                _stop = stop;
                _walk = Task.Run(() => RunAsync(before, stop));
            }
        }
    }

    public ValueTask LeaveAsync()
    {
        lock (_lock)
        {
            return --_users == 0 ? StopAsync() : default;
        }
    }

    /// <summary>Ends the walk at once.</summary>
    public ValueTask StopAsync()
    {
        lock (_lock)
        {
            CancellationTokenSource? stop = _stop;
            Task walk = _walk;
            return stop is null ? new(walk) : CancelAsync(stop, walk);
        }
    }

    /// <summary>A client has read up to here: what comes before need not be prefetched any more.</summary>
    public void NoteRead(long end)
    {
        long position = Volatile.Read(ref _position);
        while (position < end)
        {
            long seen = Interlocked.CompareExchange(ref _position, end, position);
            if (seen == position)
            {
                return;
            }
            position = seen;
        }
    }

    private static async ValueTask CancelAsync(CancellationTokenSource stop, Task walk)
    {
        await stop.CancelAsync().ConfigureAwait(false);
        await walk.ConfigureAwait(false);
    }

    private async Task RunAsync(Task before, CancellationTokenSource stop)
    {
        await before.ConfigureAwait(false);
        if (!filter.Clock)
        {
            Volatile.Write(ref _position, 0);
        }
        try
        {
            NextContext next = await backend.OpenNextAsync(readOnly: true, exportName, owner: null, stop.Token)
                .ConfigureAwait(false);
            await using (next.ConfigureAwait(false))
            {
                await next.PrepareAsync(stop.Token).ConfigureAwait(false);
                do
                {
                    await WalkAsync(next, stop.Token).ConfigureAwait(false);
                    Volatile.Write(ref _position, 0);
                }
                while (filter.Forever && next.Info.Size > 0);
            }
        }
        catch (Exception)
        {
            // Stopped, or the export cannot be opened over a context of its own: no client is the worse for it.
        }
    }

    private async ValueTask WalkAsync(NextContext next, CancellationToken cancellationToken)
    {
        long size = next.Info.Size;
        long step = Math.Max(filter.RequestSize, next.Info.BlockSize.Minimum);
        byte[]? sink = next.Info.CanCache == Support.None ? new byte[Math.Min(step, 1 << 20)] : null;
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long position = Volatile.Read(ref _position);
            if (position >= size)
            {
                return;
            }
            long offset = position & -step;
            long length = Math.Min(step, size - offset);
            long started = filter.TimeProvider.GetTimestamp();
            try
            {
                await PrefetchAsync(next, offset, length, sink, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception) when (!cancellationToken.IsCancellationRequested)
            {
                // Passed over: the client that reads it is told.
            }
            // Unless a client has gone further meanwhile.
            NoteRead(offset + length);
            if (filter.Rate is { } rate)
            {
                TimeSpan due = TimeSpan.FromSeconds((double)length / rate) - filter.TimeProvider.GetElapsedTime(started);
                if (due > TimeSpan.Zero)
                {
                    await Task.Delay(due < LongestDelay ? due : LongestDelay, filter.TimeProvider, cancellationToken).ConfigureAwait(false);
                }
            }
        }
    }

    private static async ValueTask PrefetchAsync(
        NextContext next, long offset, long length, byte[]? sink, CancellationToken cancellationToken)
    {
        if (sink is null)
        {
            await next.CacheAsync(offset, length, cancellationToken).ConfigureAwait(false);
            return;
        }
        long maximum = next.Info.BlockSize.Maximum is > 0 and var known ? known : sink.Length;
        while (length > 0)
        {
            int count = (int)Math.Min(length, Math.Min(sink.Length, maximum));
            await next.ReadAsync(sink.AsMemory(0, count), offset, cancellationToken).ConfigureAwait(false);
            offset += count;
            length -= count;
        }
    }
}
