using System.Diagnostics.CodeAnalysis;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>What the connections of one server share: its limits, its memory, its clock, and the list of who is there.</summary>
internal sealed partial class ServerCore : IDisposable
{
    // More threads than this would not make a machine faster that has to run them.
    private const int MaxThreads = 64;

    // What connections in a hurry need of them again and again.
    public const int RequestsRetained = 4096;
    public const int LoansRetained = 256;

    // How long a layer that was told to end at once may take for it. One that does not heed its token cannot be ended from
    // outside; it must not hold the host either.
    public static readonly TimeSpan LastMoment = TimeSpan.FromMilliseconds(500);

    private readonly Lock _lock = new();
    private readonly Dictionary<long, Connection> _connections = [];
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Action _requestStop;
    private readonly CancellationTokenSource _cut = new();
    private long _lastId;
    private int _lateOpens;
    private bool _stopping;

    public ServerCore(NbdBackend backend, NbdServerOptions options, Action requestStop)
    {
        Backend = backend;
        Options = options;
        _requestStop = requestStop;
        Logger = new GuardedLogger(options.LoggerFactory.CreateLogger("NbdKit.Server"));
        Budget = new ServerBudget(options.MaxServerBytesInFlight);
        _standstill = new Standstill(options.TimeProvider, WatchInterval);
        // By default eight replies of 2 MiB with their headers, as qemu-img convert asks for.
        Payloads = new PayloadArrays((options.MaxServerBytesInFlight / 32) + (64 << 10));
        _exit = ExitWatchFor(options);
        _last = options.StopAfterLast is { } grace ? new LastLeaver(grace, options.TimeProvider) : null;
        PendingRequests = new DefaultObjectPool<PendingRequest>(PendingRequestPolicy, RequestsRetained);
        Loans = new DefaultObjectPool<Loan>(LoanPolicy, LoansRetained);
    }

    public NbdBackend Backend { get; }

    public NbdServerOptions Options { get; }

    public TimeProvider TimeProvider => Options.TimeProvider;

    public ILogger Logger { get; }

    public ServerBudget Budget { get; }

    public SlabPool Slabs { get; init; } = new();

    public PayloadArrays Payloads { get; }

    private readonly PumpThreads _threads = new(MaxThreads);

    private readonly ReadinessPoller _poller = new();

    /// <summary>How often the time limits of connections are looked at.</summary>
    public static readonly TimeSpan WatchInterval = TimeSpan.FromMilliseconds(250);

    private readonly Standstill _standstill;

    private readonly SplicePipes _pipes = new(MaxThreads);

    /// <summary>Where calls of layers run that block.</summary>
    public BlockingCalls BlockingCalls { get; } = new(MaxThreads);

    public ObjectPool<PendingRequest> PendingRequests { get; }

    public CountingPolicy<PendingRequest> PendingRequestPolicy { get; } = new();

    public ObjectPool<Loan> Loans { get; }

    public CountingPolicy<Loan> LoanPolicy { get; } = new();

    /// <summary>Fires when the server can wait no longer for anything.</summary>
    public CancellationToken Cut => _cut.Token;

    public IReadOnlyCollection<NbdConnection> Connections => [.. Snapshot().Select(connection => connection.Public)];

    /// <summary>Completes when the server was told to stop and nothing of its connections runs any more.</summary>
    public Task Drained => _drained.Task;

    /// <summary>The transport of a client that has a socket.</summary>
    public Transport TransportFor(Socket socket) => new PumpedTransport(new SocketTransport(socket, _poller, _pipes), _threads);

    public void Dispose()
    {
        _poller.Dispose();
        _pipes.Dispose();
    }

    /// <summary>Asks the server to stop, without waiting for it.</summary>
    public void RequestStop() => _requestStop();

    /// <summary>Serves a client to its end.</summary>
    public Task<NbdDisconnect> ServeAsync(Transport transport, CancellationToken cancellationToken)
        => ServeAsync(transport, null, cancellationToken);

    /// <summary>
    /// Serves a client to its end; from the transmission phase on if a handshake of the host's is given, whose failures it throws.
    /// </summary>
    public async Task<NbdDisconnect> ServeAsync(
        Transport transport, NbdTransmission? negotiated, CancellationToken cancellationToken)
    {
        long id = Interlocked.Increment(ref _lastId);
        if (!TryRegister(id, transport, out Connection? connection, out NbdDisconnect? refusal))
        {
            if (refusal.Reason == NbdDisconnectReason.LimitExceeded)
            {
                // Not under the lock: a log that takes its time must not hold up those who are connected.
                Log.TooManyConnections(Logger, id, transport.Peer.ToString(), Options.MaxConnections);
            }
            transport.Abort();
            return refusal;
        }
        try
        {
            using CancellationTokenRegistration cut = cancellationToken.UnsafeRegister(
                state => ((Connection)state!).Abort(NbdDisconnectReason.ServerStopped, "the host cut the connection"),
                connection);
            connection.Negotiated = negotiated;
            NbdDisconnect end = await connection.RunAsync().ConfigureAwait(false);
            if (connection.HostFault is { } fault)
            {
                ExceptionDispatchInfo.Throw(fault);
            }
            return end;
        }
        finally
        {
            lock (_lock)
            {
                _connections.Remove(id);
                CheckDrained();
            }
            Left(connection);
        }
    }

    /// <summary>
    /// An open was given up that its layer did not give up: the chain must not end before what it opens is closed.
    /// </summary>
    public void BeginLateOpen()
    {
        lock (_lock)
        {
            _lateOpens++;
        }
    }

    public void EndLateOpen()
    {
        lock (_lock)
        {
            _lateOpens--;
            CheckDrained();
        }
    }

    /// <summary>Cuts off clients that take too long. Called in the <see cref="WatchInterval"/>.</summary>
    public void CheckTime()
    {
        long stood = _standstill.Look();
        foreach (Connection connection in Snapshot())
        {
            if (stood > 0)
            {
                connection.Forgive(stood);
            }
            else
            {
                connection.CheckTime();
            }
        }
        Payloads.Age();
    }

    /// <summary>Lets requests in flight finish for a while, then cuts what is left. Nobody is served any more.</summary>
    /// <returns>Whether all has ended; else <see cref="Drained"/> tells when it has.</returns>
    public async Task<bool> StopAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            // Whoever is not registered by now never will be.
            _stopping = true;
            CheckDrained();
        }
        bool negotiating = false;
        foreach (Connection connection in Snapshot())
        {
            connection.BeginStop();
            negotiating |= connection.IsInHandshake;
        }
        // A client that talks hears of the stop in that time; the others have nothing to lose, and would hold the stop for all of it.
        using ITimer? silence = negotiating
            ? TimeProvider.CreateTimer(_ => EndHandshakes(), null, LastMoment, Timeout.InfiniteTimeSpan)
            : null;
        if (await WaitAsync(Drained, Options.StopTimeout, cancellationToken).ConfigureAwait(false))
        {
            return true;
        }
        _ = Cancel(_cut);
        foreach (Connection connection in Snapshot())
        {
            connection.Abort(NbdDisconnectReason.ServerStopped, "the server stopped");
        }
        if (await WaitAsync(Drained, LastMoment, CancellationToken.None).ConfigureAwait(false))
        {
            return true;
        }
        int abandoned;
        lock (_lock)
        {
            abandoned = _connections.Count + _lateOpens;
        }
        Log.Abandoned(Logger, abandoned);
        return false;
    }

    private void EndHandshakes()
    {
        foreach (Connection connection in Snapshot().Where(connection => connection.IsInHandshake))
        {
            connection.Abort(NbdDisconnectReason.ServerStopped, "the server stopped during the handshake");
        }
    }

    /// <summary>Waits for a task that does not fail; false if it takes longer than it may.</summary>
    public async Task<bool> WaitAsync(Task task, TimeSpan limit, CancellationToken cancellationToken)
    {
        try
        {
            await task.WaitAsync(limit, TimeProvider, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>Fires a token that layers have, without waiting for what they do then, and whatever they throw.</summary>
    public Task Cancel(CancellationTokenSource source) => ObserveAsync(source.CancelAsync());

    private async Task ObserveAsync(Task callbacks)
    {
        try
        {
            await callbacks.ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Log.LayerFailed(Logger, Backend.Name, "a callback on a token", e);
        }
    }

    private bool TryRegister(
        long id,
        Transport transport,
        [NotNullWhen(true)] out Connection? connection,
        [NotNullWhen(false)] out NbdDisconnect? refusal)
    {
        lock (_lock)
        {
            connection = null;
            refusal = null;
            if (_stopping)
            {
                refusal = new NbdDisconnect(NbdDisconnectReason.ServerStopped, "the server is stopping");
                return false;
            }
            if (_connections.Count >= Options.MaxConnections)
            {
                refusal = new NbdDisconnect(NbdDisconnectReason.LimitExceeded, "too many clients are connected");
                return false;
            }
            connection = new Connection(this, transport, id);
            _connections.Add(id, connection);
            return true;
        }
    }

    private Connection[] Snapshot()
    {
        lock (_lock)
        {
            return [.. _connections.Values];
        }
    }

    private void CheckDrained()
    {
        if (_stopping && _connections.Count == 0 && _lateOpens == 0)
        {
            _drained.TrySetResult();
        }
    }

    /// <summary>Calls a hook of the host, whose failures are its own.</summary>
    public void Call(Action<NbdConnection>? hook, NbdConnection connection)
        => Guard(() => hook?.Invoke(connection), hook is null);

    public void Call<T>(Action<NbdConnection, T>? hook, NbdConnection connection, T argument)
        => Guard(() => hook?.Invoke(connection, argument), hook is null);

    private void Guard(Action hook, bool isNull)
    {
        if (isNull)
        {
            return;
        }
        try
        {
            hook();
        }
        catch (Exception e)
        {
            Log.HookFailed(Logger, e);
        }
    }
}
