using NbdKit.Filters.Clients;
using NbdKit.Layers;
using NbdKit.Server;

namespace NbdKit.Filters;

/// <summary>
/// Stops the server when the last client has left (nbdkit-exitlast-filter(1)). A host that makes the server itself may set
/// <see cref="NbdServerOptions.StopAfterLast"/> instead.
/// </summary>
/// <remarks>
/// A client is one that has opened an export, even if only to ask about it; who leaves without that is no reason to stop. The server
/// that the last client was connected to is stopped; further ones of the same chain go on. What the host opens itself is no client,
/// nor are shared contexts: put the filter above those that share them.
/// </remarks>
public sealed class ExitlastFilter : INbdFilter, IDisposable
{
    private readonly NofilterFilter _uncounted = new();
    private ClientRoll? _roll;
    private LastLeaver? _last;

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>exitlast-grace</c> is not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "exitlast",
        "stops when the last client has left",
        [new NbdParameter("exitlast-grace", "how long to wait for another client then (default 0)")],
        parameters => new ExitlastFilter { Grace = parameters.Delay("exitlast-grace") ?? TimeSpan.Zero });

    /// <summary>How long to wait for another client to open an export, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Grace { get; init => field = TimerRange.Checked(value); }

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "exitlast";

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        var last = new LastLeaver(Grace, TimeProvider);
        _last = last;
        _roll = new ClientRoll(client => last.Left(() =>
        {
            // One that came just now may have been too early for the clock.
            if (_roll!.Count == 0)
            {
                client.ShutdownServer();
            }
        }));
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        if (context.Connection is not { } client)
        {
            await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
            return _uncounted;
        }
        // Who asks for what is not there has not come.
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        ClientHandle handle = ClientHandle.Hold(_roll!, client);
        _last!.Came();
        return handle;
    }

    /// <summary>Stops waiting. Called by the chain.</summary>
    public void Dispose() => _last?.Dispose();
}
