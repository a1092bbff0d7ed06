using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit;

// How one data call reaches its layer: counted, so that finalize can wait for it; through the layer's gate; and holding the
// context below for as long as it runs.
public sealed partial class NextContext
{
    private int _calls;
    private TaskCompletionSource? _idle;

    /// <summary>Waits until no call is in flight on this context. Meant for a context that <c>SetNext</c> gave back.</summary>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public async ValueTask WaitForCallsAsync(CancellationToken cancellationToken)
    {
        while (Volatile.Read(ref _calls) != 0)
        {
            TaskCompletionSource idle = Volatile.Read(ref _idle) ?? NewIdle();
            // The count is read again after the signal is in place: whoever leaves last either sees it or is seen.
            Interlocked.MemoryBarrier();
            if (Volatile.Read(ref _calls) == 0)
            {
                break;
            }
            await idle.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    internal bool TryEnter()
    {
        Interlocked.Increment(ref _calls);
        if (_state is ContextState.Prepared)
        {
            return true;
        }
        Leave();
        return false;
    }

    internal void Leave()
    {
        if (_isSentinel)
        {
            return;
        }
        if (Interlocked.Decrement(ref _calls) == 0 && Volatile.Read(ref _idle) is not null)
        {
            Interlocked.Exchange(ref _idle, null)?.TrySetResult();
        }
    }

    internal void Attach(bool mustBePrepared)
    {
        lock (_stateLock)
        {
            if (_attached && !IsShared)
            {
                throw new InvalidOperationException(
                    $"The context of {Backend.Name} is attached elsewhere; only a shared one can serve several.");
            }
            if (_state is not (ContextState.Open or ContextState.Prepared))
            {
                throw new InvalidOperationException($"The context of {Backend.Name} is {StateText}: it cannot be attached.");
            }
            if (mustBePrepared && _state != ContextState.Prepared)
            {
                throw new InvalidOperationException(
                    $"The context of {Backend.Name} must be prepared before it is attached to a layer that is.");
            }
            _attached = true;
            CountsCalls = IsShared;
        }
    }

    internal void Detach()
    {
        lock (_stateLock)
        {
            _attached = false;
            CountsCalls = true;
        }
    }

    private TaskCompletionSource NewIdle()
    {
        var idle = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        return Interlocked.CompareExchange(ref _idle, idle, null) ?? idle;
    }

    private ValueTask Run(in LayerCall call, CancellationToken cancellationToken)
    {
        if (CountsCalls)
        {
            return RunCounted(call, cancellationToken);
        }
        return _gate is null ? Dispatch(call, cancellationToken) : RunGatedAsync(call, cancellationToken);
    }

    private ValueTask RunCounted(in LayerCall call, CancellationToken cancellationToken)
    {
        // A call that began before finalize may need further calls: they are let in as long as one is in flight.
        if (Interlocked.Increment(ref _calls) == 1 && _state != ContextState.Prepared)
        {
            Leave();
            throw NotUsable();
        }
        ValueTask pending;
        try
        {
            pending = _gate is null ? Dispatch(call, cancellationToken) : RunGatedAsync(call, cancellationToken);
        }
        catch
        {
            Leave();
            throw;
        }
        return LeaveWhenDone(pending, this);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask RunGatedAsync(LayerCall call, CancellationToken cancellationToken)
    {
        await _gate!.EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await Dispatch(call, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _gate.Exit();
        }
    }

    private ValueTask Dispatch(in LayerCall call, CancellationToken cancellationToken)
    {
        if (_plugin is not null)
        {
            return call.Invoke(_plugin, cancellationToken);
        }
        NextContext next = _filterContext!.EnterNext();
        ValueTask pending;
        try
        {
            pending = call.Invoke(_filter!, next, cancellationToken);
        }
        catch
        {
            next.Leave();
            throw;
        }
        return LeaveWhenDone(pending, next);
    }

    private static ValueTask LeaveWhenDone(ValueTask pending, NextContext held)
    {
        if (!pending.IsCompletedSuccessfully)
        {
            return LeaveWhenDoneAsync(pending, held);
        }
        pending.GetAwaiter().GetResult();
        held.Leave();
        return default;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private static async ValueTask LeaveWhenDoneAsync(ValueTask pending, NextContext held)
    {
        try
        {
            await pending.ConfigureAwait(false);
        }
        finally
        {
            held.Leave();
        }
    }
}
