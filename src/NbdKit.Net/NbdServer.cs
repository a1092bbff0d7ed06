using System.IO.Pipelines;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using NbdKit.Server;
using NbdKit.Transports;

namespace NbdKit;

/// <summary>
/// Serves one chain to NBD clients: on endpoints of its own, and over any stream, socket or pipe that it is given.
/// </summary>
/// <remarks>
/// Any number of servers live in one process, also several for one chain. All members are safe for use by several threads.
/// </remarks>
public sealed partial class NbdServer : IAsyncDisposable
{
    private readonly NbdBackend _backend;
    private readonly ServerCore _core;
    private readonly SemaphoreSlim _lifecycle = new(1, 1);
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _stopLock = new();
    private readonly CancellationTokenSource _stopRequested = new();
    private readonly CancellationTokenSource _hurry = new();
    private IReadOnlyList<Listener> _listeners = [];
    private ITimer? _watch;
    private CancellationTokenRegistration _layersWish;
    private Task? _stopping;
    private bool _started;

    /// <summary>Creates a server; nothing happens before <see cref="StartAsync"/>.</summary>
    /// <param name="backend">The chain to serve; see <see cref="NbdBackend"/> for who ends it.</param>
    /// <param name="options">How to serve it; the defaults if null.</param>
    /// <exception cref="ArgumentException">
    /// TLS is required, but fixed newstyle negotiation, which it takes, is not offered; or TLS and oldstyle are both asked for.
    /// </exception>
    public NbdServer(NbdBackend backend, NbdServerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(backend);
        if (options is { Tls.IsRequired: true, OfferFixedNewstyle: false })
        {
            throw new ArgumentException(
                "TLS is required, but fixed newstyle negotiation, which it takes, is not offered.", nameof(options));
        }
        if (options is { Tls: not null, Oldstyle: true })
        {
            throw new ArgumentException("The oldstyle handshake has no TLS: only one of the two can be asked for.", nameof(options));
        }
        _backend = backend;
        _core = new ServerCore(backend, options ?? new NbdServerOptions(), () => _ = StopAsync(CancellationToken.None));
    }

    /// <summary>What its connections share.</summary>
    internal ServerCore Core => _core;

    /// <summary>The endpoints that the server listens on, with ports resolved. Empty before the start.</summary>
    public IReadOnlyList<EndPoint> EndPoints => [.. _listeners.Select(l => l.EndPoint)];

    /// <summary>
    /// The NBD URI of each endpoint, <c>nbds</c> if TLS is required; but for a vsock with a port above 65,535, which
    /// <see cref="Uri"/> cannot hold. Empty before the start.
    /// </summary>
    public IReadOnlyList<Uri> Uris
    {
        get
        {
            bool isTls = _core.Options.Tls is { IsRequired: true };
            return [.. _listeners
                .Where(listener => NbdUri.CanName(listener.EndPoint))
                .Select(listener => NbdUri.For(listener.EndPoint, _core.Options.ExportName, isTls))];
        }
    }

    /// <summary>The clients that are connected now.</summary>
    public IReadOnlyCollection<NbdConnection> Connections => _core.Connections;

    /// <summary>
    /// Completes when the server has stopped, for whatever reason: <see cref="StopAsync"/>, or a layer that asked for it.
    /// </summary>
    public Task Stopped => _stopped.Task;

    /// <summary>Starts the chain if need be, binds every endpoint and begins to accept. Ready for clients when it returns.</summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="SocketException">An endpoint could not be bound; nothing listens then.</exception>
    /// <exception cref="ObjectDisposedException">The server has stopped, or its chain has ended.</exception>
    public async ValueTask StartAsync(CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_stopping is not null, this);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stopRequested.Token);
        try
        {
            await _lifecycle.WaitAsync(either.Token).ConfigureAwait(false);
            try
            {
                await StartCoreAsync(either.Token).ConfigureAwait(false);
            }
            finally
            {
                _lifecycle.Release();
            }
        }
        catch (OperationCanceledException) when (_stopRequested.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new ObjectDisposedException(GetType().FullName);
        }
    }

    /// <summary>Serves one client over a connected socket, which the server closes. Starts the server if need be.</summary>
    /// <param name="socket">The socket.</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    public Task<NbdDisconnect> ServeAsync(Socket socket, CancellationToken cancellationToken = default)
        => ServeAsync(_core.TransportFor(socket), null, cancellationToken);

    /// <summary>Serves one client over a bidirectional stream, which the server disposes of. Starts the server if need be.</summary>
    /// <param name="stream">
    /// The stream. An <see cref="SslStream"/> on which TLS is established counts as an encrypted connection, with the certificate
    /// of its peer.
    /// </param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    /// <exception cref="ArgumentException">It is an <see cref="SslStream"/> without an established TLS session.</exception>
    public Task<NbdDisconnect> ServeAsync(Stream stream, CancellationToken cancellationToken = default)
        => stream is SslStream { IsAuthenticated: false }
            ? throw new ArgumentException("TLS is not established on this stream yet.", nameof(stream))
            : ServeAsync(new StreamTransport(stream), null, cancellationToken);

    /// <summary>Serves one client over a pair of pipes, which the server completes. Starts the server if need be.</summary>
    /// <param name="pipe">The pipes.</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    public Task<NbdDisconnect> ServeAsync(IDuplexPipe pipe, CancellationToken cancellationToken = default)
        => ServeAsync(new PipeTransport(pipe), null, cancellationToken);

    /// <summary>
    /// Stops in order: accepts no more clients, lets requests in flight finish for up to
    /// <see cref="NbdServerOptions.StopTimeout"/>, then cuts what is left and ends the chain if nobody else uses it. A second
    /// call waits for the first.
    /// </summary>
    /// <remarks>
    /// Layers get their tokens fired when their time is over, and half a second more. A layer that does not heed that is left
    /// behind: the stop ends without it, and the chain ends when it comes back.
    /// </remarks>
    /// <param name="cancellationToken">Cuts what is left at once; also for a stop that another call began.</param>
    public async Task StopAsync(CancellationToken cancellationToken = default)
    {
        Task stopping;
        lock (_stopLock)
        {
            stopping = _stopping ??= Task.Run(StopCoreAsync, CancellationToken.None);
        }
        using CancellationTokenRegistration hurry = cancellationToken.UnsafeRegister(
            state => ((CancellationTokenSource)state!).Cancel(), _hurry);
        await stopping.ConfigureAwait(false);
    }

    /// <summary>Stops the server and waits for everything of it to end.</summary>
    public async ValueTask DisposeAsync() => await StopAsync(CancellationToken.None).ConfigureAwait(false);

    private async Task<NbdDisconnect> ServeAsync(
        Transport transport, NbdTransmission? negotiated, CancellationToken cancellationToken)
    {
        try
        {
            await StartAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            transport.Abort();
            throw;
        }
        // Not on the caller's thread and context: the first steps may complete at once, for as long as the client wishes.
        return await Task.Run(() => _core.ServeAsync(transport, negotiated, cancellationToken), CancellationToken.None)
            .ConfigureAwait(false);
    }

    private async Task StartCoreAsync(CancellationToken cancellationToken)
    {
        if (_started)
        {
            return;
        }
        await _backend.AcquireAsync(_core.Options.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
        var listeners = new List<Listener>();
        try
        {
            // A layer that took its time may have outlasted the stop, which did not wait for it.
            ObjectDisposedException.ThrowIf(_stopping is not null, this);
            foreach (EndPoint endPoint in _core.Options.EndPoints)
            {
                listeners.Add(Listener.Bind(_core, endPoint));
            }
        }
        catch
        {
            foreach (Listener listener in listeners)
            {
                await listener.DisposeAsync().ConfigureAwait(false);
            }
            await _backend.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
            throw;
        }
        _listeners = listeners;
        _watch = _core.TimeProvider.CreateTimer(
            state => ((ServerCore)state!).CheckTime(), _core, ServerCore.WatchInterval, ServerCore.WatchInterval);
        _started = true;
        foreach (Listener listener in listeners)
        {
            listener.Start();
        }
        _layersWish = _backend.StopRequested.UnsafeRegister(state => ((ServerCore)state!).RequestStop(), _core);
        await _core.WatchForExitAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task StopCoreAsync()
    {
        try
        {
            await _core.Cancel(_stopRequested).ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Task entering = _lifecycle.WaitAsync(CancellationToken.None);
            if (!await EndsInTimeAsync(entering, _hurry).ConfigureAwait(false))
            {
                Log.LayersAbandoned(_core.Logger, "start");
                _ = LeaveLaterAsync(entering);
                return;
            }
            try
            {
                await StopServingAsync().ConfigureAwait(false);
            }
            finally
            {
                _lifecycle.Release();
            }
        }
        finally
        {
            _stopped.TrySetResult();
        }
    }

    private async Task StopServingAsync()
    {
        foreach (Listener listener in _listeners)
        {
            await listener.DisposeAsync().ConfigureAwait(false);
        }
        bool drained = await _core.StopAsync(_hurry.Token).ConfigureAwait(false);
        if (_watch is not null)
        {
            await _watch.DisposeAsync().ConfigureAwait(false);
        }
        await _layersWish.DisposeAsync().ConfigureAwait(false);
        await _core.EndWatchForExitAsync().ConfigureAwait(false);
        if (!_started)
        {
            // A client that was to be served may have come as far as its socket.
            _core.Dispose();
            return;
        }
        var quick = new CancellationTokenSource();
        if (_core.Cut.IsCancellationRequested)
        {
            // The time of the stop is used up already.
            await quick.CancelAsync().ConfigureAwait(false);
        }
        Task ending = EndChainAsync(quick);
        if (drained && !await EndsInTimeAsync(ending, quick).ConfigureAwait(false))
        {
            Log.LayersAbandoned(_core.Logger, "end");
        }
    }

    /// <summary>Ends the server's use of the chain, when nothing of it uses the chain any more.</summary>
    private async Task EndChainAsync(CancellationTokenSource quick)
    {
        await _core.Drained.ConfigureAwait(false);
        _core.Dispose();
        await _backend.ReleaseAsync(host: false, quick.Token).ConfigureAwait(false);
    }

    /// <summary>Whether a task ends in the time that a stop may take, or shortly after it was told that it has to.</summary>
    private async Task<bool> EndsInTimeAsync(Task task, CancellationTokenSource quick)
    {
        if (!quick.IsCancellationRequested
            && await _core.WaitAsync(task, _core.Options.StopTimeout, _hurry.Token).ConfigureAwait(false))
        {
            return true;
        }
        _ = _core.Cancel(quick);
        return await _core.WaitAsync(task, ServerCore.LastMoment, CancellationToken.None).ConfigureAwait(false);
    }

    private async Task LeaveLaterAsync(Task entering)
    {
        await entering.ConfigureAwait(false);
        _lifecycle.Release();
    }
}
