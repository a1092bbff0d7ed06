namespace NbdKit.Filters.Sequential;

/// <summary>
/// Makes something once for each export, and for encrypted clients and others apart, in a task of its own: the client that came
/// first may leave without spoiling it for those who wait. What failed is made again for the next client. All that was made is
/// kept until the chain stops, so there is a limit: many plugins take whatever name a client thinks of.
/// </summary>
/// <param name="make">Makes it. The token fires when the chain stops.</param>
internal sealed class OncePerExport<T>(
    Func<NbdBackend, (string ExportName, bool IsTls), CancellationToken, ValueTask<T>> make) : IAsyncDisposable
    where T : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(string ExportName, bool IsTls), Task<T>> _made = [];
    private readonly CancellationTokenSource _stopping = new();

    /// <summary>What there is for an export, made now or before.</summary>
    /// <exception cref="NbdException">It could not be made, or there are already as many as there may be.</exception>
    public async ValueTask<T> GetAsync(NbdContext context, int limit, CancellationToken cancellationToken)
    {
        (string, bool) key = (context.ExportName, context.IsTls);
        Task<T>? made;
        lock (_lock)
        {
            if (!_made.TryGetValue(key, out made))
            {
                if (_made.Count >= limit)
                {
                    throw new NbdException(
                        NbdError.NoSpace, $"{context.Backend.Name}: there are already {limit} exports, which is as many as may be kept");
                }
                made = MakeAsync(context.Backend, key);
                _made.Add(key, made);
            }
        }
        return await made.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        Task<T>[] all;
        lock (_lock)
        {
            all = [.. _made.Values];
            _made.Clear();
        }
        foreach (Task<T> made in all)
        {
            await ((Task)made).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (made.IsCompletedSuccessfully)
            {
                await made.Result.DisposeAsync().ConfigureAwait(false);
            }
        }
        _stopping.Dispose();
    }

    private async Task<T> MakeAsync(NbdBackend backend, (string, bool) key)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            return await make(backend, key, _stopping.Token).ConfigureAwait(false);
        }
        catch
        {
            lock (_lock)
            {
                if (_made.Remove(key, out Task<T>? failed))
                {
                    // Perhaps all who waited have left.
                    _ = failed.ContinueWith(
                        task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
                }
            }
            throw;
        }
    }
}
