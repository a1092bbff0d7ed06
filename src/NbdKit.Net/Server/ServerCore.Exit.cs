namespace NbdKit.Server;

// When the server stops by itself: after an event, and when the last client has left.
internal sealed partial class ServerCore
{
    private readonly ExitWatch? _exit;
    private readonly LastLeaver? _last;

    /// <summary>Whether an event has happened after which no more clients are let in.</summary>
    public ValueTask<bool> IsExitingAsync(CancellationToken cancellationToken)
        => _exit is null ? new(false) : _exit.IsExitingAsync(cancellationToken);

    /// <summary>A client has entered transmission.</summary>
    public void BeginTransmission() => _last?.Came();

    public ValueTask WatchForExitAsync(CancellationToken cancellationToken)
        => _exit is null ? default : _exit.StartAsync(Logger, cancellationToken);

    public async ValueTask EndWatchForExitAsync()
    {
        _last?.Dispose();
        if (_exit is not null)
        {
            await _exit.DisposeAsync().ConfigureAwait(false);
        }
    }

    private ExitWatch? ExitWatchFor(NbdServerOptions options) => options.StopWhen.Count == 0
        ? null
        : new ExitWatch(options.StopWhen, options.StopWhenPoll, options.TimeProvider, () => Connections.Count, RequestStop);

    private void Left(Connection connection)
    {
        if (_exit is not null && Connections.Count == 0)
        {
            _exit.Wake();
        }
        if (_last is not null && connection.WasServed)
        {
            _last.Left(() =>
            {
                // One that came just now may have been too early for the clock.
                if (!Snapshot().Any(other => other.WasServed))
                {
                    RequestStop();
                }
            });
        }
    }
}
