using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace NbdKit.Filters;

// Who may pass, and who waits for whom. A request counts itself first and looks whether there is a pause afterwards; a pause
// does it the other way round, so that one of the two always sees the other.
public sealed partial class PauseFilter
{
    private readonly Lock _lock = new();
    private readonly List<NextContext> _open = [];
    private ILogger _logger = NullLogger.Instance;
    private long _running;

    // Both are set while it is paused: one completes when requests may go on, the other when none is under way.
    private volatile TaskCompletionSource? _resumed;
    private volatile TaskCompletionSource? _quiet;

    // How many calls want the current pause.
    private int _pausers;

    private TaskCompletionSource BeginPause()
    {
        lock (_lock)
        {
            _pausers++;
            if (_resumed is null)
            {
                // In this order: who ends a request before the second line is no reason to believe that all is quiet, as
                // another may have begun before the first.
                _resumed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                _quiet = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }
            Interlocked.MemoryBarrier();
            if (Interlocked.Read(ref _running) == 0)
            {
                _quiet!.TrySetResult();
            }
            return _resumed;
        }
    }

    private async ValueTask WaitUntilQuietAsync(TaskCompletionSource pause, CancellationToken cancellationToken)
    {
        Task quiet = _quiet?.Task ?? Task.CompletedTask;
        await Task.WhenAny(quiet, pause.Task).WaitAsync(cancellationToken).ConfigureAwait(false);
        RequireCurrent(pause);
    }

    private void RequireCurrent(TaskCompletionSource pause)
    {
        if (_resumed != pause)
        {
            throw new InvalidOperationException("Requests were resumed before all was quiet.");
        }
    }

    private void GiveUpPause(TaskCompletionSource pause)
    {
        lock (_lock)
        {
            if (_resumed == pause && --_pausers == 0)
            {
                Resume();
            }
        }
    }

    private void Resume()
    {
        lock (_lock)
        {
            TaskCompletionSource? pause = _resumed;
            _pausers = 0;
            _resumed = null;
            _quiet = null;
            pause?.TrySetResult();
        }
    }

    /// <summary>Counts a request in, unless it has to wait.</summary>
    private bool TryEnter()
    {
        Interlocked.Increment(ref _running);
        if (_resumed is null)
        {
            return true;
        }
        Exit();
        return false;
    }

    private async ValueTask EnterAsync(CancellationToken cancellationToken)
    {
        do
        {
            if (_resumed is { } pause)
            {
                await pause.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        while (!TryEnter());
    }

    private void Exit()
    {
        if (Interlocked.Decrement(ref _running) == 0)
        {
            _quiet?.TrySetResult();
        }
    }

    private Task FlushAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            return Task.WhenAll([.. _open.Select(next => FlushOneAsync(next, cancellationToken))]);
        }
    }

    private static async Task FlushOneAsync(NextContext next, CancellationToken cancellationToken)
    {
        // Leave the lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        if (next.TryEnter())
        {
            try
            {
                await next.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                next.Leave();
            }
        }
    }
}
