using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace NbdKit.Server;

/// <summary>
/// Looks for events after which no more clients are to be let in, and acts when one has happened and nobody is there, once. Looks when
/// a client comes, when the last one has left, and every now and then.
/// </summary>
/// <param name="events">The events.</param>
/// <param name="every">How often to look when nobody comes or leaves.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="clients">How many clients are there now; one that comes is there before it is looked.</param>
/// <param name="exit">What to do.</param>
internal sealed partial class ExitWatch(
    IReadOnlyList<NbdExitEvent> events, TimeSpan every, TimeProvider timeProvider, Func<int> clients, Action exit) : IAsyncDisposable
{
    // A client that comes waits for that long, once: an event that hangs must not keep others out, nor hold up the end.
    private static readonly TimeSpan LongestLook = TimeSpan.FromSeconds(30);

    private readonly SemaphoreSlim _looking = new(1, 1);
    private readonly Task<bool>?[] _hanging = new Task<bool>?[events.Count];
    private readonly CancellationTokenSource _ending = new();
    private TaskCompletionSource _wake = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private ILogger _logger = NullLogger.Instance;
    private Task _watching = Task.CompletedTask;
    private volatile bool _happened;
    private bool _exited;

    /// <summary>Looks for the first time, and begins to watch.</summary>
    public async ValueTask StartAsync(ILogger logger, CancellationToken cancellationToken)
    {
        _logger = logger;
        try
        {
            await IsExitingAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // Also if it has happened and a client is there by now, and if the starter gave up.
            if (events.Count > 0 && !Volatile.Read(ref _exited))
            {
                _watching = WatchAsync();
            }
        }
    }

    /// <summary>Whether no more clients are to be let in.</summary>
    public async ValueTask<bool> IsExitingAsync(CancellationToken cancellationToken)
    {
        if (!_happened && events.Count > 0)
        {
            await _looking.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                for (int i = 0; i < events.Count && !_happened; i++)
                {
                    await LookAsync(i, cancellationToken).ConfigureAwait(false);
                }
            }
            finally
            {
                _looking.Release();
            }
        }
        if (_happened && clients() == 0 && !Interlocked.Exchange(ref _exited, true))
        {
            exit();
        }
        return _happened;
    }

    /// <summary>The last client has left.</summary>
    public void Wake() => Volatile.Read(ref _wake).TrySetResult();

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _watching.ConfigureAwait(false);
    }

    private async Task WatchAsync()
    {
        // What the first look takes is not the starter's time.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            while (!_exited)
            {
                Task woken = Volatile.Read(ref _wake).Task;
                if (_happened && await IsExitingAsync(_ending.Token).ConfigureAwait(false) && _exited)
                {
                    // Whoever was there left before anybody waited for that.
                    break;
                }
                try
                {
                    await woken.WaitAsync(every, timeProvider, _ending.Token).ConfigureAwait(false);
                    Volatile.Write(ref _wake, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
                }
                catch (TimeoutException)
                {
                    // Nobody came or left.
                }
                await IsExitingAsync(_ending.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (_ending.IsCancellationRequested)
        {
            // The end.
        }
    }

    private async ValueTask LookAsync(int number, CancellationToken cancellationToken)
    {
        NbdExitEvent awaited = events[number];
        try
        {
            if (await AskAsync(number, cancellationToken).ConfigureAwait(false))
            {
                _happened = true;
                LogHappened(_logger, awaited.Description);
            }
        }
        catch (Exception e) when (e is not OperationCanceledException || !cancellationToken.IsCancellationRequested)
        {
            LogFailed(_logger, awaited.Description, e);
        }
    }

    private async ValueTask<bool> AskAsync(int number, CancellationToken cancellationToken)
    {
        if (_hanging[number] is { } before)
        {
            // It still looks, since somebody asked long ago.
            if (!before.IsCompleted)
            {
                return false;
            }
            _hanging[number] = null;
            if (before.IsCompletedSuccessfully && before.Result)
            {
                return true;
            }
        }
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        ValueTask<bool> look = events[number].HasHappenedAsync(giveUp.Token);
        if (look.IsCompleted)
        {
            return await look.ConfigureAwait(false);
        }
        Task<bool> looking = look.AsTask();
        try
        {
            return await looking.WaitAsync(LongestLook, timeProvider, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (!looking.IsCompleted)
            {
                _hanging[number] = looking;
                // Nobody waits for how it ends.
                _ = looking.ContinueWith(
                    task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
                await giveUp.CancelAsync().ConfigureAwait(false);
            }
        }
    }

    [LoggerMessage(62, LogLevel.Information, "No more clients are let in, as {Event}; the server stops when the last one has left")]
    private static partial void LogHappened(ILogger logger, string @event);

    [LoggerMessage(63, LogLevel.Warning, "Whether {Event} cannot be told")]
    private static partial void LogFailed(ILogger logger, string @event, Exception exception);
}
