using NbdKit.Layers;

namespace NbdKit.Plugins;

/// <summary>
/// Serves another chain as it is, and can replace it by a third one while clients use it: they notice nothing but a short
/// wait.
/// </summary>
/// <remarks>
/// <para>
/// Put it where the change is to happen: as the whole chain behind a server or behind an export of
/// <see cref="ExportsPlugin"/>, or below filters that are to stay. See <see cref="ReplaceAsync"/> for how a change goes.
/// </para>
/// <para>
/// Each client has a context of its own of the chain, opened with its export name and its connection. The chain belongs to
/// the plugin: it starts with it, and ends when it is replaced or the plugin stops, unless somebody else uses it too (a
/// server, another plugin, or the host, which called <see cref="NbdBackend.StartAsync"/>). A request costs no more than
/// two interlocked additions. nbdkit has no such plugin.
/// </para>
/// </remarks>
public sealed partial class SwitchPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly HashSet<SwitchHandle> _handles = [];
    private readonly SemaphoreSlim _changing = new(1, 1);
    private readonly CancellationTokenSource _stopping = new();
    private NbdBackend? _holder;
    private NbdBackend _chain = null!;
    private bool _running;

    // Set while a chain is being replaced, for what comes in meanwhile.
    private TaskCompletionSource? _change;

    /// <summary>The chain that serves now: first the one that was set, later the one of the last replacement.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get => Volatile.Read(ref _chain);
        init => _chain = value ?? throw new ArgumentNullException(nameof(value));
    }

    /// <inheritdoc/>
    public string Name => "switch";

    /// <inheritdoc/>
    public ThreadModel ThreadModel
        => Chain.ThreadModel == ThreadModel.SerializeRetirement ? ThreadModel.SerializeRetirement : ThreadModel.Parallel;

    private NbdBackend Holder => _holder ?? throw new InvalidOperationException("switch is not part of a chain.");

    void IChainHolder.Bind(NbdBackend backend) => _holder = backend;

    /// <inheritdoc/>
    public async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        await Chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
        _running = true;
    }

    /// <inheritdoc/>
    public async ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        NbdBackend chain = await EnterChainAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await InnerContext.PreconnectAsync(chain, connection, readOnly, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        NbdBackend chain = await EnterChainAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await chain.ListExportsAsync(exports, readOnly, connection, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        NbdBackend chain = await EnterChainAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return await chain.DefaultExportAsync(readOnly, connection, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        while (true)
        {
            NbdBackend chain = await WaitForChainAsync(cancellationToken).ConfigureAwait(false);
            InnerContext inner;
            try
            {
                inner = await InnerContext.OpenAsync(
                    chain, Holder, context.ReadOnly, context.ExportName, context.Connection, cancellationToken)
                    .ConfigureAwait(false);
            }
            catch (Exception) when (!ReferenceEquals(chain, Chain) && !cancellationToken.IsCancellationRequested)
            {
                continue;
            }
            lock (_lock)
            {
                if (ReferenceEquals(chain, Chain) && _change is null)
                {
                    var handle = new SwitchHandle(this, context, inner);
                    _handles.Add(handle);
                    return handle;
                }
            }
            // It was replaced meanwhile, or is about to be.
            await inner.CloseAsync().ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(CancellationToken cancellationToken)
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        await _changing.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        bool wasRunning = _running;
        _running = false;
        _changing.Release();
        if (wasRunning)
        {
            await Chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Disposes of the chain if it was never started.</summary>
    public async ValueTask DisposeAsync()
    {
        await Chain.DiscardAsync().ConfigureAwait(false);
        _stopping.Dispose();
    }

    /// <summary>The handle is about to close: it is not moved to another chain any more.</summary>
    internal void Leave(SwitchHandle handle)
    {
        lock (_lock)
        {
            _handles.Remove(handle);
        }
    }

    /// <summary>Takes hold of a handle, so that it is not closed meanwhile; false if it is closing.</summary>
    private bool TryHold(SwitchHandle handle)
    {
        lock (_lock)
        {
            if (!_handles.Contains(handle))
            {
                return false;
            }
            handle.Hold();
            return true;
        }
    }

    private async ValueTask<NbdBackend> WaitForChainAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            Task change;
            lock (_lock)
            {
                if (_change is null)
                {
                    return Chain;
                }
                change = _change.Task;
            }
            await change.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The chain that serves now, kept alive until the caller releases it.</summary>
    private async ValueTask<NbdBackend> EnterChainAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            NbdBackend chain = await WaitForChainAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                await chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
                return chain;
            }
            catch (ObjectDisposedException) when (!ReferenceEquals(chain, Chain))
            {
                // It ended between the question and the answer.
            }
        }
    }
}
