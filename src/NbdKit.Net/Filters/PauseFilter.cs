namespace NbdKit.Filters;

/// <summary>
/// Stops and resumes requests, for a consistent snapshot of what the host has underneath. Corresponds to
/// nbdkit-pause-filter(1), with a call besides its control socket.
/// </summary>
/// <remarks>
/// While it is paused, requests of all kinds wait, flushes included (which nbdkit lets through); clients may still connect, open
/// and leave. A request that waits is given up when its client goes away. Resume before the server is stopped in order, or it
/// waits for the requests as long as it is allowed to. Work of the layers below is not stopped: put the filter below those that
/// keep data back.
/// </remarks>
public sealed partial class PauseFilter : INbdFilter, INbdFilterHandle
{
    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>pause-flush</c> is not known to nbdkit, and the socket is not required here.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "pause",
        "pauses and resumes requests",
        [
            new NbdParameter("pause-control", "path of a Unix socket that takes p (pause) and r (resume)"),
            new NbdParameter("pause-flush", "whether to flush the layers below once they are quiet (default no)"),
        ],
        parameters => new PauseFilter
        {
            ControlPath = parameters.Text("pause-control"),
            FlushesWhenQuiet = parameters.Boolean("pause-flush") ?? false,
        });

    /// <summary>
    /// The path of a Unix domain socket, for the user of this process alone, from the start of the chain to its end: whoever
    /// connects sends bytes, each answered by one. <c>p</c> pauses, and is answered <c>P</c> when no request is under way any
    /// more; <c>r</c> resumes, and is answered <c>R</c>. What is unknown, or failed, is answered <c>X</c>. Null, the default,
    /// for none.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? ControlPath
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value);
            }
            field = value is null ? null : Path.GetFullPath(value);
        }
    }

    /// <summary>
    /// Whether a pause also flushes the layers below every open export, after the last request. False by default.
    /// </summary>
    public bool FlushesWhenQuiet { get; init; }

    /// <summary>Whether requests are held up now.</summary>
    public bool IsPaused => _resumed is not null;

    /// <inheritdoc/>
    public string Name => "pause";

    /// <inheritdoc/>
    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        _logger = backend.Logger;
        if (ControlPath is not null)
        {
            Listen(ControlPath);
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken) => StopListeningAsync();

    /// <summary>
    /// Holds up new requests, and waits for those that are under way; then flushes, if <see cref="FlushesWhenQuiet"/> is set.
    /// Does no harm if it is paused already. Safe from any thread at any time.
    /// </summary>
    /// <param name="cancellationToken">Gives up; requests go on, unless somebody else paused them as well.</param>
    /// <exception cref="InvalidOperationException">It was resumed before all was quiet.</exception>
    /// <exception cref="NbdException">A flush failed; requests go on, unless somebody else paused them as well.</exception>
    public async ValueTask PauseAsync(CancellationToken cancellationToken = default)
    {
        TaskCompletionSource pause = BeginPause();
        bool done = false;
        try
        {
            await WaitUntilQuietAsync(pause, cancellationToken).ConfigureAwait(false);
            if (FlushesWhenQuiet)
            {
                await FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            RequireCurrent(pause);
            done = true;
        }
        finally
        {
            if (!done)
            {
                GiveUpPause(pause);
            }
        }
    }

    /// <summary>Lets requests go on. Does nothing if they do. Safe from any thread at any time.</summary>
    public ValueTask ResumeAsync()
    {
        Resume();
        return default;
    }
}
