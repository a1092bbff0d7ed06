namespace NbdKit.Filters.Sequential;

/// <summary>
/// Makes something once for each export, and for encrypted clients and others apart, in a task of its own: the client that came
/// first may leave without spoiling it for those who wait. What failed is made again for the next client. All that was made is
/// kept until the chain stops, but for no more exports than a limit says, as many plugins take whatever name a client thinks of:
/// what nobody has used for longest makes room.
/// </summary>
/// <param name="make">Makes it. The token fires when the chain stops, or when nobody waits for it any more and its place is needed.</param>
/// <param name="gone">Called after something that was made had to make room and was disposed of; null if that is of no interest.</param>
internal sealed class OncePerExport<T>(
    Func<NbdBackend, (string ExportName, bool IsTls), CancellationToken, ValueTask<T>> make, Action? gone = null) : IAsyncDisposable
    where T : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(string ExportName, bool IsTls), Entry> _made = [];
    private readonly HashSet<Entry> _leaving = [];
    private long _releases;

    /// <summary>What there is for an export, made now or before. It stays until the use of it is disposed of.</summary>
    /// <exception cref="NbdException">It could not be made, or there are already as many in use as there may be.</exception>
    public async ValueTask<Use> GetAsync(NbdContext context, int limit, CancellationToken cancellationToken)
    {
        (string, bool) key = (context.ExportName, context.IsTls);
        Entry? entry;
        while (!TryEnter(context.Backend, key, limit, out entry, out Entry? leaving))
        {
            // Its place is free; what it takes is to be free, too, before something else takes as much.
            await EndAsync(leaving!).WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            return new Use(this, entry!, await entry!.Made.WaitAsync(cancellationToken).ConfigureAwait(false));
        }
        catch
        {
            Release(entry!);
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        Task[] all;
        lock (_lock)
        {
            _leaving.UnionWith(_made.Values);
            all = [.. _leaving.Select(EndAsync)];
            _made.Clear();
        }
        foreach (Task end in all)
        {
            await end.ConfigureAwait(false);
        }
    }

    /// <summary>Takes part in what there is, or begins to make it; else takes what is to make room off the list, or fails.</summary>
    private bool TryEnter(NbdBackend backend, (string, bool) key, int limit, out Entry? entry, out Entry? leaving)
    {
        lock (_lock)
        {
            leaving = null;
            if (!_made.TryGetValue(key, out entry))
            {
                if (_made.Count >= limit)
                {
                    leaving = _made.Values.Where(e => e.Users == 0).MinBy(e => e.Released)
                        ?? throw new NbdException(
                            NbdError.NoSpace, $"{backend.Name}: there are already {limit} exports in use, which is as many as may be kept");
                    _made.Remove(leaving.Key);
                    _leaving.Add(leaving);
                    return false;
                }
                entry = new Entry(key);
                entry.Made = MakeAsync(backend, entry);
                _made.Add(key, entry);
            }
            entry.Users++;
            return true;
        }
    }

    private void Release(Entry entry)
    {
        lock (_lock)
        {
            entry.Users--;
            entry.Released = ++_releases;
        }
    }

    private Task EndAsync(Entry entry)
    {
        lock (_lock)
        {
            return entry.Ending ??= EndOnceAsync(entry);
        }
    }

    private async Task EndOnceAsync(Entry entry)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            await entry.Stopping.CancelAsync().ConfigureAwait(false);
            await ((Task)entry.Made).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (entry.Made.IsCompletedSuccessfully)
            {
                await entry.Made.Result.DisposeAsync().ConfigureAwait(false);
                gone?.Invoke();
            }
        }
        finally
        {
            lock (_lock)
            {
                _leaving.Remove(entry);
            }
            entry.Stopping.Dispose();
        }
    }

    private async Task<T> MakeAsync(NbdBackend backend, Entry entry)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            return await make(backend, entry.Key, entry.Stopping.Token).ConfigureAwait(false);
        }
        catch
        {
            lock (_lock)
            {
                if (_made.GetValueOrDefault(entry.Key) == entry)
                {
                    _made.Remove(entry.Key);
                }
                // Perhaps all who waited have left.
                _ = entry.Made.ContinueWith(
                    task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            }
            throw;
        }
    }

    /// <summary>Something that was made, for one client.</summary>
    internal sealed class Use(OncePerExport<T> owner, Entry entry, T made) : IDisposable
    {
        private OncePerExport<T>? _owner = owner;

        public T Made => made;

        public void Dispose() => Interlocked.Exchange(ref _owner, null)?.Release(entry);
    }

    internal sealed class Entry((string ExportName, bool IsTls) key)
    {
        public (string ExportName, bool IsTls) Key => key;

        public Task<T> Made { get; set; } = null!;

        public CancellationTokenSource Stopping { get; } = new();

        public Task? Ending { get; set; }

        public int Users { get; set; }

        /// <summary>When somebody left it last, in the order of all that leave.</summary>
        public long Released { get; set; }
    }
}
