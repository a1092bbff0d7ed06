namespace NbdKit.Filters;

// The shared contexts: who opens them, who uses them, and when they go.
public sealed partial class OpenonceFilter
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(string ExportName, bool ReadOnly, bool IsTls), Shared> _contexts = [];
    private readonly CancellationTokenSource _stopping = new();

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        Task[] closings;
        // Opens that are still running serve nobody any more.
        await _stopping.CancelAsync().ConfigureAwait(false);
        lock (_lock)
        {
            closings = [.. _contexts.Values.Select(Close)];
        }
        await Task.WhenAll(closings).ConfigureAwait(false);
        _stopping.Dispose();
    }

    private async ValueTask<Shared> AcquireAsync(NbdContext context, CancellationToken cancellationToken)
    {
        (string, bool, bool) key = (context.ExportName, context.ReadOnly, context.IsTls);
        bool takesOne = context.Backend.Next!.ThreadModel == ThreadModel.SerializeConnections;
        while (true)
        {
            Shared? shared;
            Task before;
            lock (_lock)
            {
                if (_contexts.TryGetValue(key, out shared) && shared.Closing is null)
                {
                    shared.Users++;
                    shared.StopTimer();
                    before = shared.Opening;
                }
                else if (shared is not null)
                {
                    // A device that is being let go of can be opened again only afterwards.
                    before = shared.Closing!;
                    shared = null;
                }
                else if (takesOne && _contexts.Count > 0)
                {
                    Shared other = _contexts.Values.First();
                    before = other.Users == 0 ? Close(other) : other.WhenUnused();
                }
                else
                {
                    shared = new Shared(key) { Users = 1 };
                    _contexts.Add(key, shared);
                    // The client that came first may leave, and others may have come meanwhile: its token is not for the open.
                    shared.Opening = OpenSharedAsync(context.Backend, shared);
                    before = shared.Opening;
                }
            }
            try
            {
                await before.WaitAsync(cancellationToken).ConfigureAwait(false);
                if (shared is not null)
                {
                    return shared;
                }
            }
            catch when (shared is not null)
            {
                Release(shared);
                throw;
            }
        }
    }

    private async Task<NextContext> OpenSharedAsync(NbdBackend backend, Shared shared)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            (string exportName, bool readOnly, bool isTls) = shared.Key;
            NextContext next = await backend.OpenSharedNextAsync(readOnly, exportName, isTls, _stopping.Token).ConfigureAwait(false);
            try
            {
                await next.PrepareAsync(_stopping.Token).ConfigureAwait(false);
                return next;
            }
            catch
            {
                await next.CloseAsync().ConfigureAwait(false);
                throw;
            }
        }
        catch
        {
            // Not remembered: who comes now tries again.
            Forget(shared);
            throw;
        }
    }

    private void Release(Shared shared)
    {
        lock (_lock)
        {
            if (--shared.Users > 0)
            {
                return;
            }
            shared.SignalUnused();
            if (shared.Closing is not null || IdleTime is not { } time)
            {
                return;
            }
            if (time == TimeSpan.Zero)
            {
                _ = Close(shared);
                return;
            }
            int use = ++shared.Uses;
            shared.Timer = TimeProvider.CreateTimer(
                _ => CloseIfUnusedSince(shared, use), null, time, Timeout.InfiniteTimeSpan);
        }
    }

    private void CloseIfUnusedSince(Shared shared, int use)
    {
        lock (_lock)
        {
            if (shared.Users == 0 && shared.Uses == use && shared.Closing is null)
            {
                _ = Close(shared);
            }
        }
    }

    /// <summary>Begins to close a context; called under the lock.</summary>
    private Task Close(Shared shared)
    {
        shared.StopTimer();
        return shared.Closing ??= CloseSharedAsync(shared);
    }

    private async Task CloseSharedAsync(Shared shared)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await ((Task)shared.Opening).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (shared.Opening.IsCompletedSuccessfully)
        {
            await shared.Opening.Result.CloseAsync().ConfigureAwait(false);
        }
        Forget(shared);
    }

    private void Forget(Shared shared)
    {
        lock (_lock)
        {
            if (_contexts.TryGetValue(shared.Key, out Shared? current) && current == shared)
            {
                _contexts.Remove(shared.Key);
            }
            shared.Closing ??= Task.CompletedTask;
            shared.StopTimer();
            shared.SignalUnused();
        }
    }

    /// <summary>One context of the layer below and its users. All members belong to the filter's lock.</summary>
    private sealed class Shared((string ExportName, bool ReadOnly, bool IsTls) key)
    {
        private TaskCompletionSource? _unused;

        public (string ExportName, bool ReadOnly, bool IsTls) Key { get; } = key;

        /// <summary>Who is served by it, or waits for it to open.</summary>
        public int Users { get; set; }

        /// <summary>Counts how often it became unused, so that a timer that is late knows.</summary>
        public int Uses { get; set; }

        public Task<NextContext> Opening { get; set; } = null!;

        public Task? Closing { get; set; }

        public ITimer? Timer { get; set; }

        public Task WhenUnused()
            => (_unused ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;

        public void SignalUnused()
        {
            _unused?.TrySetResult();
            _unused = null;
        }

        public void StopTimer()
        {
            Timer?.Dispose();
            Timer = null;
        }
    }
}
