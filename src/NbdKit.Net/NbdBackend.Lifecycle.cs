using Microsoft.Extensions.Logging;
using NbdKit.Server;

namespace NbdKit;

// The life of a chain: ready and start when its first user comes, cleanup and disposal when its last user goes.
public sealed partial class NbdBackend
{
    private readonly SemaphoreSlim _lifecycle = new(1, 1);
    private readonly CancellationTokenSource _stopRequested = new();
    private int _users;
    private bool _hostUses;
    private volatile bool _ended;
    private volatile bool _running;

    /// <summary>
    /// Starts the chain for the host: gets every layer ready and starts it, innermost first. Does nothing if the host did so
    /// before. Only the outermost layer can be started.
    /// </summary>
    /// <param name="loggerFactory">Receives what the layers report; by default nothing is logged.</param>
    /// <param name="cancellationToken">Gives up the start.</param>
    /// <exception cref="InvalidOperationException">This is not the outermost layer of its chain.</exception>
    /// <exception cref="ObjectDisposedException">The chain has ended; compose a new one.</exception>
    public async ValueTask StartAsync(
        ILoggerFactory? loggerFactory = null, CancellationToken cancellationToken = default)
    {
        if (Volatile.Read(ref _hostUses) && !_ended)
        {
            return;
        }
        await AcquireAsync(loggerFactory, host: true, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Ends the host's use of the chain. If no server uses it, what the host left open is closed, every layer is cleaned up,
    /// outermost first, and disposed of. Layers that were never started are only disposed of. Does nothing on an inner layer.
    /// </summary>
    public async ValueTask DisposeAsync() => await ReleaseAsync(host: true, CancellationToken.None).ConfigureAwait(false);

    internal async ValueTask AcquireAsync(ILoggerFactory? loggerFactory, bool host, CancellationToken cancellationToken)
    {
        if (Above is not null)
        {
            throw new InvalidOperationException($"{Name} is not the outermost layer of its chain; start {Above.Name} or what is above it.");
        }
        await _lifecycle.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(_ended, this);
            if (host && _hostUses)
            {
                return;
            }
            if (_users == 0)
            {
                await StartLayersAsync(loggerFactory, cancellationToken).ConfigureAwait(false);
            }
            _users++;
            _hostUses |= host;
        }
        finally
        {
            _lifecycle.Release();
        }
    }

    /// <summary>Ends one use of the chain; the last one ends the chain. The token fires when that has to be quick.</summary>
    internal async ValueTask ReleaseAsync(bool host, CancellationToken quick)
    {
        await _lifecycle.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            if (_ended || Above is not null || (host && !_hostUses && _users > 0))
            {
                return;
            }
            if (_users == 0)
            {
                _ended = true;
                await DisposeLayersAsync().ConfigureAwait(false);
                return;
            }
            if (host)
            {
                _hostUses = false;
            }
            if (--_users == 0)
            {
                _ended = true;
                await CleanupLayersAsync(this, quick).ConfigureAwait(false);
                await DisposeLayersAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            _lifecycle.Release();
        }
    }

    /// <summary>Disposes of the layers of a chain that nobody has used; does nothing to any other.</summary>
    internal async ValueTask DiscardAsync()
    {
        await _lifecycle.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            if (!_ended && _users == 0 && Above is null)
            {
                _ended = true;
                await DisposeLayersAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            _lifecycle.Release();
        }
    }

    /// <summary>Fires when a layer of this chain, of which this is the outermost, wants the servers of the chain to stop.</summary>
    internal CancellationToken StopRequested => _stopRequested.Token;

    /// <summary>Asks the servers of the chain to stop in order, also those that have yet to start, without waiting for them.</summary>
    internal void RequestStop()
    {
        NbdBackend outermost = this;
        while (outermost.Above is { } above)
        {
            outermost = above;
        }
        _ = outermost._stopRequested.CancelAsync();
    }

    internal void LogLayerFailure(string callback, Exception exception)
        => Log.LayerFailed(Logger, Name, callback, exception);

    private async ValueTask StartLayersAsync(ILoggerFactory? loggerFactory, CancellationToken cancellationToken)
    {
        var layers = new List<NbdBackend>();
        for (NbdBackend? layer = this; layer is not null; layer = layer.Next)
        {
            layers.Insert(0, layer);
            layer.Logger = loggerFactory is null
                ? layer.Logger
                : new GuardedLogger(loggerFactory.CreateLogger("NbdKit." + layer.Name));
            layer.LoggerFactory = loggerFactory;
        }
        NbdBackend? started = null;
        try
        {
            foreach (NbdBackend layer in layers)
            {
                await (layer.Plugin?.GetReadyAsync(ThreadModel, cancellationToken)
                    ?? layer.Filter!.GetReadyAsync(ThreadModel, cancellationToken)).ConfigureAwait(false);
            }
            foreach (NbdBackend layer in layers)
            {
                started = layer;
                await (layer.Plugin?.StartAsync(cancellationToken)
                    ?? layer.Filter!.StartAsync(layer, cancellationToken)).ConfigureAwait(false);
                layer._running = true;
            }
        }
        catch
        {
            _ended = true;
            await CleanupLayersAsync(started, cancellationToken).ConfigureAwait(false);
            await DisposeLayersAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static async ValueTask CleanupLayersAsync(NbdBackend? outermost, CancellationToken quick)
    {
        for (NbdBackend? layer = outermost; layer is not null; layer = layer.Next)
        {
            // While this layer still lives, and after the layer above had its chance to do it.
            await layer.CloseForgottenAsync().ConfigureAwait(false);
            try
            {
                await (layer.Plugin?.CleanupAsync(quick)
                    ?? layer.Filter!.CleanupAsync(layer, quick)).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                layer.LogLayerFailure("cleanup", e);
            }
        }
    }

    private async ValueTask DisposeLayersAsync()
    {
        if (Next is not null)
        {
            await Next.DisposeLayersAsync().ConfigureAwait(false);
        }
        try
        {
            object layer = (object?)Plugin ?? Filter!;
            if (layer is IAsyncDisposable asyncDisposable)
            {
                await asyncDisposable.DisposeAsync().ConfigureAwait(false);
            }
            else if (layer is IDisposable disposable)
            {
                disposable.Dispose();
            }
        }
        catch (Exception e)
        {
            LogLayerFailure("dispose", e);
        }
    }
}
