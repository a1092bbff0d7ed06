using System.Collections.Concurrent;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>What the connections of one server share: its limits, its memory, its clock, and the list of who is there.</summary>
internal sealed class ServerCore : IDisposable
{
    // More threads than this would not make a machine faster that has to run them.
    private const int MaxThreads = 64;

    private readonly ConcurrentDictionary<long, (Connection Connection, Task Task)> _connections = new();
    private readonly Action _requestStop;
    private readonly CancellationTokenSource _cut = new();
    private long _lastId;
    private int _count;
    private volatile bool _stopping;

    public ServerCore(NbdBackend backend, NbdServerOptions options, Action requestStop)
    {
        Backend = backend;
        Options = options;
        _requestStop = requestStop;
        Logger = options.LoggerFactory.CreateLogger("NbdKit.Server");
        Budget = new ServerBudget(options.MaxServerBytesInFlight);
        PendingRequests = new DefaultObjectPool<PendingRequest>(new DefaultPooledObjectPolicy<PendingRequest>(), 4096);
    }

    public NbdBackend Backend { get; }

    public NbdServerOptions Options { get; }

    public TimeProvider TimeProvider => Options.TimeProvider;

    public ILogger Logger { get; }

    public ServerBudget Budget { get; }

    public SlabPool Slabs { get; } = new();

    private readonly PumpThreads _threads = new(MaxThreads);

    private readonly ReadinessPoller _poller = new();

    public ObjectPool<PendingRequest> PendingRequests { get; }

    /// <summary>Fires when the server can wait no longer for anything.</summary>
    public CancellationToken Cut => _cut.Token;

    public IReadOnlyCollection<NbdConnection> Connections => [.. _connections.Values.Select(c => c.Connection.Public)];

    /// <summary>The transport of a client that has a socket.</summary>
    public Transport TransportFor(Socket socket) => new PumpedTransport(new SocketTransport(socket, _poller), _threads);

    public void Dispose() => _poller.Dispose();

    /// <summary>Asks the server to stop, without waiting for it.</summary>
    public void RequestStop() => _requestStop();

    /// <summary>Serves a client to its end.</summary>
    public async Task<NbdDisconnect> ServeAsync(Transport transport, CancellationToken cancellationToken)
    {
        long id = Interlocked.Increment(ref _lastId);
        int count = Interlocked.Increment(ref _count);
        try
        {
            if (_stopping || count > Options.MaxConnections)
            {
                if (!_stopping)
                {
                    Log.TooManyConnections(Logger, id, transport.Peer.ToString(), Options.MaxConnections);
                }
                transport.Abort();
                return _stopping
                    ? new NbdDisconnect(NbdDisconnectReason.ServerStopped, "the server is stopping")
                    : new NbdDisconnect(NbdDisconnectReason.LimitExceeded, "too many clients are connected");
            }
            var connection = new Connection(this, transport, id);
            var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _connections[id] = (connection, ended.Task);
            try
            {
                if (_stopping)
                {
                    connection.BeginStop();
                }
                using CancellationTokenRegistration cut = cancellationToken.UnsafeRegister(
                    state => ((Connection)state!).Abort(NbdDisconnectReason.ServerStopped, "the host cut the connection"),
                    connection);
                return await connection.RunAsync().ConfigureAwait(false);
            }
            finally
            {
                _connections.TryRemove(id, out _);
                ended.SetResult();
            }
        }
        finally
        {
            Interlocked.Decrement(ref _count);
        }
    }

    /// <summary>Cuts off clients that take too long. Called a few times a second.</summary>
    public void CheckTime()
    {
        foreach ((Connection connection, _) in _connections.Values)
        {
            connection.CheckTime();
        }
    }

    /// <summary>Lets requests in flight finish for a while, then cuts what is left.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _stopping = true;
        foreach ((Connection connection, _) in _connections.Values)
        {
            connection.BeginStop();
        }
        if (await WaitAsync(Options.StopTimeout, TimeProvider, cancellationToken).ConfigureAwait(false))
        {
            return;
        }
        await _cut.CancelAsync().ConfigureAwait(false);
        foreach ((Connection connection, _) in _connections.Values)
        {
            connection.Abort(NbdDisconnectReason.ServerStopped, "the server stopped");
        }
        // Layers that heed their token end at once now. One that does not cannot be ended from outside; it must not hold the
        // host either.
        if (!await WaitAsync(TimeSpan.FromMilliseconds(500), TimeProvider.System, CancellationToken.None).ConfigureAwait(false))
        {
            Log.Abandoned(Logger, _connections.Count);
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

    private async Task<bool> WaitAsync(TimeSpan limit, TimeProvider timeProvider, CancellationToken cancellationToken)
    {
        try
        {
            await Task.WhenAll(_connections.Values.Select(c => c.Task))
                .WaitAsync(limit, timeProvider, cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException)
        {
            return false;
        }
    }
}
