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

    private TaskCompletionSource NewIdle()
    {
        var idle = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        return Interlocked.CompareExchange(ref _idle, idle, null) ?? idle;
    }

    private ValueTask Run(in LayerCall call, CancellationToken cancellationToken)
    {
        if (CountsCalls || _state != ContextState.Prepared)
        {
            return RunCounted(call, cancellationToken);
        }
        return _gate is null ? Dispatch(call, cancellationToken) : RunGatedAsync(call, cancellationToken);
    }

    private ValueTask RunCounted(in LayerCall call, CancellationToken cancellationToken)
    {
        Hold();
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

    /// <summary>
    /// Takes hold of the context for what is made of several calls, so that it is not finalized between two of them.
    /// </summary>
    private void Hold()
    {
        // A call that began before finalize may need further calls: they are let in as long as one is in flight.
        if (Interlocked.Increment(ref _calls) == 1 && _state != ContextState.Prepared)
        {
            Leave();
            throw NotUsable();
        }
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
