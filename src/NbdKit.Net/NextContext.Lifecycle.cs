using System.Runtime.ExceptionServices;
using NbdKit.Layers;
using NbdKit.Server;

namespace NbdKit;

// Open, prepare, finalize, close: each once for each layer, whoever asks for it and however often. Each is one task that the
// first caller starts and every other waits for.
public sealed partial class NextContext
{
    private readonly Lock _stateLock = new();
    private TaskCompletionSource? _preparing;
    private Task? _finalizing;
    private Task? _closing;
    private bool _filterPrepared;

    internal bool IsHeldByAContext
    {
        get
        {
            lock (_stateLock)
            {
                return _attached;
            }
        }
    }

    internal async ValueTask OpenAsync(CancellationToken cancellationToken)
    {
        try
        {
            await EnterGateAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (_own.Backend.Plugin is { } plugin)
                {
                    _plugin = await plugin.OpenAsync(_own, cancellationToken).ConfigureAwait(false)
                        ?? throw new InvalidOperationException($"The plugin {plugin.Name} opened an export but returned null.");
                }
                else
                {
                    INbdFilter filter = _own.Backend.Filter!;
                    _filter = await filter.OpenAsync(_filterContext!, cancellationToken).ConfigureAwait(false)
                        ?? throw new InvalidOperationException($"The filter {filter.Name} opened a context but returned null.");
                }
            }
            finally
            {
                _gate?.Exit();
            }
            _state = ContextState.Open;
        }
        catch
        {
            // What a filter attached before it failed is closed here; what it opened on its own is its own to close.
            await CloseNextAsync().ConfigureAwait(false);
            _state = ContextState.Closed;
            throw;
        }
    }

    /// <summary>
    /// Prepares this context, the layers below it first. Only for contexts that a filter manages itself; idempotent.
    /// </summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="InvalidOperationException">The context was finalized, is closed, or failed to prepare before.</exception>
    /// <exception cref="NbdException">The layer refused.</exception>
    public async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        _ = Own;
        while (true)
        {
            Task? pending = null;
            lock (_stateLock)
            {
                switch (_state)
                {
                    case ContextState.Prepared:
                        return;
                    case ContextState.Preparing:
                        pending = _preparing!.Task;
                        break;
                    case ContextState.Open:
                        _state = ContextState.Preparing;
                        _preparing = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                        break;
                    default:
                        throw new InvalidOperationException($"The context of {Backend.Name} {StateText}: it cannot be prepared.");
                }
            }
            if (pending is null)
            {
                await PrepareFirstAsync(cancellationToken).ConfigureAwait(false);
                return;
            }
            await pending.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask PrepareFirstAsync(CancellationToken cancellationToken)
    {
        bool prepared = false;
        try
        {
            await PrepareLayersAsync(cancellationToken).ConfigureAwait(false);
            prepared = true;
        }
        finally
        {
            _state = prepared ? ContextState.Prepared : ContextState.PrepareFailed;
            _preparing!.SetResult();
        }
    }

    private async ValueTask PrepareLayersAsync(CancellationToken cancellationToken)
    {
        NextContext next = await PrepareNextAsync(cancellationToken).ConfigureAwait(false);
        await EnterGateAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_filter is not null)
            {
                await _filter.PrepareAsync(next, cancellationToken).ConfigureAwait(false);
                _filterPrepared = true;
                _filterContext!.BecomePrepared();
                // It may have attached another one, and only what is prepared may be attached from now on.
                next = await PrepareNextAsync(cancellationToken).ConfigureAwait(false);
            }
            NbdExportInfo? info = _plugin is not null
                ? await _plugin.GetInfoAsync(cancellationToken).ConfigureAwait(false)
                : await _filter!.GetInfoAsync(next, cancellationToken).ConfigureAwait(false);
            _info = info?.Gated(ReadOnly)
                ?? throw new InvalidOperationException($"{Backend.Name} returned null from GetInfoAsync.");
            FindShortcuts();
        }
        finally
        {
            _gate?.Exit();
        }
    }

    private async ValueTask<NextContext> PrepareNextAsync(CancellationToken cancellationToken)
    {
        if (_filterContext?.Next is not { } next)
        {
            return Detached;
        }
        if (next.IsUnowned)
        {
            // Others wait for it as well: a client that leaves meanwhile must not spoil it for them.
            await next.PrepareAsync(CancellationToken.None).AsTask().WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }
        return next;
    }

    /// <summary>
    /// Ends the data calls: waits for those in flight, lets the layer do its last work, then does the same for the layers
    /// below. Only for contexts that a filter manages itself. A second call waits for the first.
    /// </summary>
    /// <remarks>
    /// A data call that may have begun on this context must not wait for this, as it would wait for itself; see
    /// <see cref="NbdContext.CloseWhenIdle"/>.
    /// </remarks>
    /// <param name="cancellationToken">
    /// Gives up waiting, and tells the layers that the end has to be quick. What was begun goes on, and
    /// <see cref="CloseAsync"/> waits for it.
    /// </param>
    /// <exception cref="InvalidOperationException">The context is closed or attached.</exception>
    public ValueTask FinalizeAsync(CancellationToken cancellationToken)
    {
        _ = Own;
        return FinalizeCoreAsync(byOwner: true, quick: cancellationToken, cancellationToken);
    }

    /// <summary>
    /// Closes the context, the layers below it last. Finalizes it first if it was prepared and that was not done. Only for
    /// contexts that a filter or the host manages itself. A second call waits for the first.
    /// </summary>
    /// <exception cref="InvalidOperationException">The context is attached.</exception>
    public ValueTask CloseAsync() => new(CloseCore(byOwner: true));

    /// <summary>Finalizes the context if it was prepared, then closes it.</summary>
    public ValueTask DisposeAsync() => CloseAsync();

    private async ValueTask FinalizeCoreAsync(bool byOwner, CancellationToken quick, CancellationToken cancellationToken)
    {
        Task? finalizing = null;
        while (finalizing is null)
        {
            Task? preparing = null;
            lock (_stateLock)
            {
                RequireDetached(byOwner, "finalizes");
                switch (_state)
                {
                    case ContextState.Closed:
                        throw new InvalidOperationException($"The context of {Backend.Name} is closed: it cannot be finalized.");
                    case ContextState.Preparing:
                        preparing = _preparing!.Task;
                        break;
                    case ContextState.Prepared or ContextState.PrepareFailed:
                        _state = ContextState.Finalizing;
                        _filterContext?.BeginClosing();
                        finalizing = _finalizing = FinalizeLayersAsync(quick);
                        break;
                    case ContextState.Finalizing or ContextState.Finalized:
                        finalizing = _finalizing!;
                        break;
                    default:
                        return;
                }
            }
            if (preparing is not null)
            {
                await preparing.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        await finalizing.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task FinalizeLayersAsync(CancellationToken quick)
    {
        // Leave the caller's lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await WaitForCallsAsync(CancellationToken.None).ConfigureAwait(false);
        Exception? failure = null;
        if (_filterPrepared || _plugin is IChainHandle)
        {
            try
            {
                await EnterGateAsync(CancellationToken.None).ConfigureAwait(false);
                try
                {
                    await (_filter?.FinalizeAsync(_filterContext!.Next ?? Detached, quick)
                        ?? ((IChainHandle)_plugin!).FinalizeAsync(quick)).ConfigureAwait(false);
                }
                finally
                {
                    _gate?.Exit();
                }
            }
            catch (Exception e)
            {
                // Logged here, where the layer is known; whoever waits is told as well.
                Backend.LogLayerFailure("finalize", e);
                failure = e;
            }
        }
        if (_filterContext?.Next is { IsUnowned: false } next)
        {
            try
            {
                await next.FinalizeCoreAsync(byOwner: false, quick, CancellationToken.None).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failure ??= e;
            }
        }
        _state = ContextState.Finalized;
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    private Task CloseCore(bool byOwner)
    {
        if (_isSentinel)
        {
            return Task.CompletedTask;
        }
        lock (_stateLock)
        {
            RequireDetached(byOwner, "closes");
            if (_closing is null && _state != ContextState.Closed)
            {
                _closing = CloseLayersAsync();
            }
            return _closing ?? Task.CompletedTask;
        }
    }

    private async Task CloseLayersAsync()
    {
        // Leave the caller's lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            await FinalizeCoreAsync(byOwner: false, CancellationToken.None, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception)
        {
            // It was logged when it happened, and nothing of it changes that the layers are closed.
        }
        _state = ContextState.Closed;
        try
        {
            await EnterGateAsync(CancellationToken.None).ConfigureAwait(false);
            try
            {
                await (_plugin?.CloseAsync() ?? _filter!.CloseAsync()).ConfigureAwait(false);
            }
            finally
            {
                _gate?.Exit();
            }
        }
        catch (Exception e)
        {
            Backend.LogLayerFailure("close", e);
        }
        await CloseNextAsync().ConfigureAwait(false);
        Backend.Forget(this);
        Owner?.Forget(this);
        ConnectionGate?.Exit();
    }

    private async ValueTask CloseNextAsync()
    {
        if (_filterContext is null)
        {
            return;
        }
        _filterContext.BeginClosing();
        if (_filterContext.SetNext(null) is { IsUnowned: false } next)
        {
            await next.CloseCore(byOwner: false).ConfigureAwait(false);
        }
        await _filterContext.WaitForLeavingAsync().ConfigureAwait(false);
        foreach (NextContext forgotten in _filterContext.TakeForgotten())
        {
            Log.ContextForgotten(Backend.Logger, Backend.Name, forgotten.Backend.Name);
            await forgotten.CloseCore(byOwner: false).ConfigureAwait(false);
        }
    }
}
