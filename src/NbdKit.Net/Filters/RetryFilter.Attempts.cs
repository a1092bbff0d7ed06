using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;

namespace NbdKit.Filters;

// The attempts of a request, and the replacement of the context below between them.
public sealed partial class RetryFilter
{
    private sealed partial class RetryHandle
    {
        private readonly CancellationTokenSource _closing = new();
        private readonly Lock _lock = new();

        // Generations that were left while requests ran on them, on their way to being closed.
        private readonly List<Task> _leaving = [];
        private Generation _current;
        private Task? _reopening;
        private volatile bool _readOnlyNow;

        // The way of a request that succeeds at once: nothing is allocated and nothing awaited.
        private ValueTask Run(in RetryRequest request, CancellationToken cancellationToken)
        {
            Generation current = Volatile.Read(ref _current);
            if ((_readOnlyNow && request.Changes) || !current.TryEnter(out NextContext? context))
            {
                return RunAsync(request, null, null, cancellationToken);
            }
            if (context is null)
            {
                return RunAsync(request, current, current.NewFailure(), cancellationToken);
            }
            if (request.ObjectionOf(context.Info) is { } objection)
            {
                current.Leave();
                return RunAsync(request, current, objection, cancellationToken);
            }
            ValueTask attempt;
            try
            {
                attempt = request.InvokeAsync(context, cancellationToken);
            }
            catch (Exception e)
            {
                attempt = ValueTask.FromException(e);
            }
            if (!attempt.IsCompletedSuccessfully)
            {
                return FinishAsync(request, current, attempt, cancellationToken);
            }
            attempt.GetAwaiter().GetResult();
            current.Leave();
            return default;
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        private async ValueTask FinishAsync(
            RetryRequest request, Generation current, ValueTask attempt, CancellationToken cancellationToken)
        {
            Exception failure;
            try
            {
                await attempt.ConfigureAwait(false);
                return;
            }
            catch (Exception e) when (_filter.IsWorthRetrying(e, cancellationToken))
            {
                failure = e;
            }
            finally
            {
                current.Leave();
            }
            await RunAsync(request, current, failure, cancellationToken).ConfigureAwait(false);
        }

        /// <summary>Goes on with a request that has failed on a generation, or begins one.</summary>
        private async ValueTask RunAsync(
            RetryRequest request, Generation? generation, Exception? failure, CancellationToken cancellationToken)
        {
            for (int retries = 0; ;)
            {
                if (failure is not null)
                {
                    // A fast zero is asked for to save time: it does not wait for better days.
                    if (request.IsFastZero && (generation!.Failure is not null || IsNotSupported(failure)))
                    {
                        throw new NbdException(NbdError.NotSupported, "no fast zero while the disk is not what it was", failure);
                    }
                    if (retries == _filter.Retries)
                    {
                        ExceptionDispatchInfo.Throw(failure);
                    }
                    await _filter.WaitAsync(retries++, failure, cancellationToken).ConfigureAwait(false);
                }
                (generation, NextContext? context) = await EnterNewerAsync(
                    failure is null ? null : generation, request.Changes, cancellationToken).ConfigureAwait(false);
                if (context is null)
                {
                    failure = generation.NewFailure();
                    continue;
                }
                try
                {
                    failure = request.ObjectionOf(context.Info);
                    if (failure is null)
                    {
                        await request.InvokeAsync(context, cancellationToken).ConfigureAwait(false);
                        return;
                    }
                }
                catch (Exception e) when (_filter.IsWorthRetrying(e, cancellationToken))
                {
                    failure = e;
                }
                finally
                {
                    generation.Leave();
                }
            }
        }

        /// <summary>
        /// Takes hold of the newest generation, after replacing it if it is the one that the caller failed on.
        /// </summary>
        private async ValueTask<(Generation Generation, NextContext? Context)> EnterNewerAsync(
            Generation? failedOn, bool changes, CancellationToken cancellationToken)
        {
            while (true)
            {
                Task replaced;
                lock (_lock)
                {
                    if (ReferenceEquals(_current, failedOn))
                    {
                        _reopening ??= ReopenAsync(_current);
                    }
                    if (_readOnlyNow && changes)
                    {
                        throw new NbdException(NbdError.PermissionDenied, "the disk was opened again, and read-only");
                    }
                    if (_reopening is null)
                    {
                        // Only what is being replaced is ever retired.
                        _current.TryEnter(out NextContext? context);
                        return (_current, context);
                    }
                    replaced = _reopening;
                }
                try
                {
                    await replaced.WaitAsync(cancellationToken).ConfigureAwait(false);
                }
                catch (OperationCanceledException e)
                {
                    throw new NbdException(NbdError.Shutdown, "the client left while the disk was opened again", e);
                }
            }
        }

        private async Task ReopenAsync(Generation old)
        {
            _readOnlyNow = _filter.ReopenReadOnly;
            // Leave the caller's lock before any code of a layer runs.
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Generation opened;
            try
            {
                if (old.Retire())
                {
                    await old.CloseAsync().ConfigureAwait(false);
                }
                else
                {
                    Leave(old);
                }
                opened = new Generation(await OpenPreparedAsync(
                    _context, _context.ReadOnly || _filter.ReopenReadOnly, _closing.Token).ConfigureAwait(false));
            }
            catch (Exception e)
            {
                opened = new Generation(e);
            }
            lock (_lock)
            {
                Volatile.Write(ref _current, opened);
                _reopening = null;
            }
        }

        private void Leave(Generation old)
        {
            lock (_lock)
            {
                _leaving.RemoveAll(task => task.IsCompleted);
                _leaving.Add(CloseLaterAsync(old));
            }
        }

        private static async Task CloseLaterAsync(Generation old)
        {
            await old.WaitForRequestsAsync().ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            await old.CloseAsync().ConfigureAwait(false);
        }

        private async ValueTask StopReopeningAsync(CancellationToken cancellationToken)
        {
            await _closing.CancelAsync().ConfigureAwait(false);
            Task? pending;
            lock (_lock)
            {
                pending = _reopening;
            }
            await (pending ?? Task.CompletedTask).WaitAsync(cancellationToken).ConfigureAwait(false);
            lock (_lock)
            {
                pending = Task.WhenAll(_leaving);
            }
            await pending.WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        private static bool IsNotSupported(Exception e) => e is NbdException { Error: NbdError.NotSupported };
    }
}
