using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit;

/// <summary>
/// An opened layer, as the layer above it (or the server, or the host) uses it. It knows what the layer can do, refuses
/// what it cannot, emulates what it only promised, and keeps the order of its life: open, prepare, data calls, finalize,
/// close.
/// </summary>
/// <remarks>
/// <para>
/// Data calls may come from several threads at once; the layer's thread model is enforced here. What is attached with
/// <see cref="NbdContext.SetNext"/>, or was opened with <see cref="NbdContext.OpenNextAsync(CancellationToken)"/>, is
/// prepared, finalized and closed by the library. What a filter opens with <see cref="NbdBackend.OpenNextAsync"/> and does
/// not attach is its own to prepare, finalize and close. Breaking a rule throws <see cref="InvalidOperationException"/>
/// with the rule in its message.
/// </para>
/// <para>Source: nbdkit-filter(3), "Next"; rules and emulations are in the other parts of this class.</para>
/// </remarks>
public sealed partial class NextContext : IAsyncDisposable
{
    private readonly NbdOpenContext _own;
    private readonly NbdContext? _filterContext;
    private readonly RequestGate? _gate;
    private readonly Lock _stateLock = new();
    private INbdPluginHandle? _plugin;
    private INbdFilterHandle? _filter;
    private NbdExportInfo? _info;
    private Task? _finalizing;
    private volatile ContextState _state;
    private bool _attached;
    private readonly bool _isSentinel;

    internal NextContext(NbdOpenContext own)
    {
        _own = own;
        _filterContext = own as NbdContext;
        _gate = own.Backend.GateForContext();
        CountsCalls = true;
    }

    /// <summary>Stands for "nothing attached"; every call on it throws.</summary>
    internal static NextContext Detached { get; } = new();

    private NextContext()
    {
        _own = null!;
        _isSentinel = true;
        _state = ContextState.Closed;
    }

    /// <summary>Whether a context of the layer below is attached; false for what a filter gets that opened none.</summary>
    public bool IsAttached => !_isSentinel;

    /// <summary>The layer that is opened here.</summary>
    /// <exception cref="InvalidOperationException">No context is attached.</exception>
    public NbdBackend Backend => Own.Backend;

    /// <summary>Whether the layer was opened read-only.</summary>
    public bool ReadOnly => Own.ReadOnly;

    /// <summary>The name of the export that is opened here.</summary>
    public string ExportName => Own.ExportName;

    /// <summary>Whether the context is tied to no connection.</summary>
    public bool IsShared => Own.IsShared;

    /// <summary>What the layer is and can do, with all gates applied.</summary>
    /// <exception cref="InvalidOperationException">The context was not prepared.</exception>
    public NbdExportInfo Info => _info ?? throw NotUsable();

    internal string StateText => _state.ToString().ToLowerInvariant();

    /// <summary>
    /// Set while data calls take hold of the context by themselves. Off where the caller does it for a whole call
    /// (an attached context), or counts on its own (the server's transmission).
    /// </summary>
    internal bool CountsCalls { get; set; }

    /// <summary>Set for a context that holds the only place of a chain that takes one connection at a time.</summary>
    internal RequestGate? ConnectionGate { get; set; }

    private NbdOpenContext Own => _isSentinel ? throw NotUsable() : _own;

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
        lock (_stateLock)
        {
            if (_state == ContextState.Prepared)
            {
                return;
            }
            if (_state != ContextState.Open)
            {
                throw new InvalidOperationException($"The context of {Backend.Name} is {StateText}: it cannot be prepared.");
            }
            _state = ContextState.Preparing;
        }
        try
        {
            NextContext next = Detached;
            if (_filterContext?.Next is { } attached)
            {
                await attached.PrepareAsync(cancellationToken).ConfigureAwait(false);
                next = attached;
            }
            await EnterGateAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (_filter is not null)
                {
                    await _filter.PrepareAsync(next, cancellationToken).ConfigureAwait(false);
                    next = _filterContext!.Next ?? Detached;
                }
                NbdExportInfo info = _plugin is not null
                    ? await _plugin.GetInfoAsync(cancellationToken).ConfigureAwait(false)
                    : await _filter!.GetInfoAsync(next, cancellationToken).ConfigureAwait(false);
                if (info is null)
                {
                    throw new InvalidOperationException($"{Backend.Name} returned null from GetInfoAsync.");
                }
                _info = info.Gated(ReadOnly);
            }
            finally
            {
                _gate?.Exit();
            }
            if (_filterContext is not null)
            {
                _filterContext.IsPrepared = true;
            }
            _state = ContextState.Prepared;
        }
        catch
        {
            _state = ContextState.PrepareFailed;
            throw;
        }
    }

    /// <summary>
    /// Ends the data calls: waits for those in flight, lets the layer do its last work, then does the same for the layers
    /// below. Only for contexts that a filter manages itself. A second call waits for the first.
    /// </summary>
    /// <param name="cancellationToken">Gives up waiting for calls in flight.</param>
    /// <exception cref="InvalidOperationException">The context is closed or attached.</exception>
    public ValueTask FinalizeAsync(CancellationToken cancellationToken)
    {
        _ = Own;
        if (_attached && !IsShared)
        {
            throw new InvalidOperationException(
                $"The context of {Backend.Name} is attached: the library finalizes it. Detach it first.");
        }
        return FinalizeCoreAsync(cancellationToken);
    }

    /// <summary>
    /// Closes the context, the layers below it last. Finalizes it first if it was prepared and that was not done. Only for
    /// contexts that a filter or the host manages itself; idempotent.
    /// </summary>
    /// <exception cref="InvalidOperationException">The context is attached.</exception>
    public ValueTask CloseAsync()
    {
        if (_attached && !IsShared)
        {
            throw new InvalidOperationException(
                $"The context of {Backend.Name} is attached: the library closes it. Detach it first.");
        }
        return CloseCoreAsync();
    }

    /// <summary>Finalizes the context if it was prepared, then closes it.</summary>
    public ValueTask DisposeAsync() => CloseAsync();

    private async ValueTask FinalizeCoreAsync(CancellationToken cancellationToken)
    {
        Task finalizing;
        lock (_stateLock)
        {
            if (_state == ContextState.Closed)
            {
                throw new InvalidOperationException($"The context of {Backend.Name} is closed: it cannot be finalized.");
            }
            if (_finalizing is null)
            {
                if (_state is not (ContextState.Prepared or ContextState.PrepareFailed))
                {
                    return;
                }
                bool wasPrepared = _state == ContextState.Prepared;
                _state = ContextState.Finalizing;
                if (_filterContext is not null)
                {
                    _filterContext.IsClosing = true;
                }
                _finalizing = FinalizeLayersAsync(wasPrepared, cancellationToken);
            }
            finalizing = _finalizing;
        }
        await finalizing.ConfigureAwait(false);
    }

    private async Task FinalizeLayersAsync(bool wasPrepared, CancellationToken cancellationToken)
    {
        // Leave the caller's lock before any code of a layer runs.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await WaitForCallsAsync(cancellationToken).ConfigureAwait(false);
        Exception? failure = null;
        if (wasPrepared && _filter is not null)
        {
            try
            {
                await EnterGateAsync(cancellationToken).ConfigureAwait(false);
                try
                {
                    await _filter.FinalizeAsync(_filterContext!.Next ?? Detached, cancellationToken).ConfigureAwait(false);
                }
                finally
                {
                    _gate?.Exit();
                }
            }
            catch (Exception e)
            {
                failure = e;
            }
        }
        if (_filterContext?.Next is { IsShared: false } next)
        {
            try
            {
                await next.FinalizeCoreAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failure ??= e;
            }
        }
        _state = ContextState.Finalized;
        if (failure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    private async ValueTask CloseCoreAsync()
    {
        if (_isSentinel || _state == ContextState.Closed)
        {
            return;
        }
        try
        {
            await FinalizeCoreAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Backend.LogLayerFailure("finalize", e);
        }
        lock (_stateLock)
        {
            if (_state == ContextState.Closed)
            {
                return;
            }
            _state = ContextState.Closed;
        }
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
        ConnectionGate?.Exit();
    }

    private async ValueTask CloseNextAsync()
    {
        if (_filterContext is null)
        {
            return;
        }
        _filterContext.IsClosing = true;
        NextContext? next = _filterContext.SetNext(null);
        if (next is { IsShared: false })
        {
            await next.CloseCoreAsync().ConfigureAwait(false);
        }
    }

    private ValueTask EnterGateAsync(CancellationToken cancellationToken)
        => _gate is null ? default : _gate.EnterAsync(cancellationToken);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private InvalidOperationException NotUsable()
        => _isSentinel
            ? new InvalidOperationException("No context of the layer below is attached: the filter opened none, or detached it.")
            : new InvalidOperationException($"The context of {Backend.Name} is {StateText}: it takes calls between prepare and finalize only.");
}
