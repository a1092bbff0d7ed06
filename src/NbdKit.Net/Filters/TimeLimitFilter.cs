using NbdKit.Filters.Clients;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Closes connections that last too long, or on which nothing happens for too long. Corresponds to nbdkit-time-limit-filter(1).
/// </summary>
/// <remarks>
/// The time in all counts from when a client connects, its handshake included; nbdkit's counts from when it opens an export, and is only
/// noticed with the next request. A client is idle while none of its requests is under way, from when it was received whole;
/// that time counts from when it opened its export. When a time is over the connection is cut, whatever it does. What the host opens itself has no limits.
/// </remarks>
public sealed class TimeLimitFilter : INbdFilter
{
    private readonly NofilterFilter _unlimited = new();

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>time-limit-idle</c> is not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "time-limit",
        "closes connections after a time",
        [
            new NbdParameter("time-limit", "the time in all, 0 for no limit (default 60 seconds)"),
            new NbdParameter("time_limit", "the same as time-limit"),
            new NbdParameter("timelimit", "the same as time-limit"),
            new NbdParameter("time-limit-idle", "the time without requests, 0 for no limit (default: no limit)"),
        ],
        parameters => new TimeLimitFilter
        {
            Total = parameters.Delay("time-limit") ?? parameters.Delay("time_limit") ?? parameters.Delay("timelimit")
                ?? TimeSpan.FromSeconds(60),
            Idle = parameters.Delay("time-limit-idle") ?? TimeSpan.Zero,
        });

    /// <summary>How long a connection may last, up to 49 days; zero for any time. 60 seconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Total { get; init => field = TimerRange.Checked(value); } = TimeSpan.FromSeconds(60);

    /// <summary>How long a client may go without a request, up to 49 days; zero, the default, for any time.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Idle { get; init => field = TimerRange.Checked(value); }

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "time-limit";

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        ArgumentNullException.ThrowIfNull(connection);
        if (Total > TimeSpan.Zero)
        {
            ITimer timer = TimeProvider.CreateTimer(
                state => ((NbdConnection)state!).Disconnect(force: true), connection, Total, Timeout.InfiniteTimeSpan);
            connection.Aborted.UnsafeRegister(state => ((ITimer)state!).Dispose(), timer);
        }
        return next.PreconnectAsync(connection, readOnly, cancellationToken);
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return Idle > TimeSpan.Zero && context.Connection is { } client ? new IdleHandle(client, Idle, TimeProvider) : _unlimited;
    }
}
