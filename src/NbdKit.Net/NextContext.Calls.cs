using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit;

// How one data call reaches its layer: counted, so that finalize can wait for it; through the layer's gate; and holding the
// context below for as long as it runs.
public sealed partial class NextContext
{
    private int _calls;
    private TaskCompletionSource? _idle;

    // For a filter that keeps its next: the context below. Whoever called this one holds both.
    private NextContext? _keptNext;

    // Where reads and writes may go at once, around layers that leave them alone.
    private NextContext? _readVia;
    private NextContext? _writeVia;

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

    /// <summary>Whether a call needs neither a gate nor to be counted here.</summary>
    private bool IsDirect => !CountsCalls && _gate is null && _state == ContextState.Prepared;

    /// <summary>Called once this layer was prepared: finds the shortest way that calls may take.</summary>
    private void FindShortcuts()
    {
        if (_filter is not { KeepsNext: true })
        {
            return;
        }
        _filterContext!.KeepNext();
        NextContext next = _filterContext.Next ?? Detached;
        _keptNext = next;
        if (_filter is ITransparentFilter transparent && next.IsAttached)
        {
            _readVia = transparent.LeavesAlone(LayerOperation.Read) ? next._readVia ?? next : null;
            _writeVia = transparent.LeavesAlone(LayerOperation.Write) ? next._writeVia ?? next : null;
        }
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
        if (_keptNext is { } kept)
        {
            return call.Invoke(_filter!, kept, cancellationToken);
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
