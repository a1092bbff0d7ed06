using NbdKit.Filters.Clients;
using NbdKit.Layers;
using NbdKit.Server;

namespace NbdKit.Filters;

/// <summary>
/// Stops the servers of its chain in order after an event: no more clients are let in, and the last one that leaves ends it
/// (nbdkit-exitwhen-filter(1)). A host that makes the server itself may set <see cref="NbdServerOptions.StopWhen"/> instead.
/// </summary>
/// <remarks>
/// <para>
/// It is looked for events at the start, when a client connects, when the last one has left, and every <see cref="Poll"/>. An event that
/// has happened already stops the server right after its start. Without events the filter does nothing.
/// </para>
/// <para>
/// A chain that a plugin holds knows no server before a client has come: an event stops that of the client that came last.
/// </para>
/// </remarks>
public sealed class ExitwhenFilter : INbdFilter
{
    private readonly NofilterFilter _uncounted = new();
    private ClientRoll? _roll;
    private ExitWatch? _watch;
    private NbdConnection? _latest;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "exitwhen",
        "stops after an event, when the last client has left",
        [
            new NbdParameter("exit-when-file-created", "a file is there") { IsRepeatable = true },
            new NbdParameter("exit-when-file-deleted", "a file is not there") { IsRepeatable = true },
            new NbdParameter("exit-when-pipe-closed", "the other end of this file descriptor was closed") { IsRepeatable = true },
            new NbdParameter("exit-when-fd-closed", "the same as exit-when-pipe-closed") { IsRepeatable = true },
            new NbdParameter("exit-when-process-exits", "the process with this id has ended") { IsRepeatable = true },
            new NbdParameter("exit-when-pid-exits", "the same as exit-when-process-exits") { IsRepeatable = true },
            new NbdParameter("exit-when-script", "this command ends with status 88") { IsRepeatable = true },
            new NbdParameter("exit-when-poll", "how often to look while nobody comes or leaves (default 60 seconds)"),
        ],
        Create);

    /// <summary>The events, any of which is enough. None by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public IReadOnlyList<NbdExitEvent> Events
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = [];

    /// <summary>How often to look while nobody comes or leaves, more than nothing and up to 49 days. 60 seconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is zero, negative or too long.</exception>
    public TimeSpan Poll
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfEqual(value, TimeSpan.Zero);
            field = TimerRange.Checked(value);
        }
    } = TimeSpan.FromSeconds(60);

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "exitwhen";

    /// <inheritdoc/>
    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(backend);
        var roll = new ClientRoll(_ => _watch!.Wake());
        _roll = roll;
        _watch = new ExitWatch(Events, Poll, TimeProvider, () => roll.Count, () =>
        {
            backend.RequestStop();
            Volatile.Read(ref _latest)?.ShutdownServer();
        });
        return _watch.StartAsync(backend.Logger, cancellationToken);
    }

    /// <inheritdoc/>
    public async ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        ArgumentNullException.ThrowIfNull(connection);
        Volatile.Write(ref _latest, connection);
        _roll!.TryEnter(connection);
        if (await _watch!.IsExitingAsync(cancellationToken).ConfigureAwait(false))
        {
            if (_roll.Count == 1)
            {
                connection.ShutdownServer();
            }
            throw new NbdException(NbdError.Shutdown, "the server is about to stop");
        }
        await next.PreconnectAsync(connection, readOnly, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        if (context.Connection is { } client)
        {
            return await ClientHandle.OpenAsync(_roll!, client, int.MaxValue, context, cancellationToken).ConfigureAwait(false);
        }
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return _uncounted;
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken) => _watch?.DisposeAsync() ?? default;

    private static ExitwhenFilter Create(NbdParameters parameters) => new()
    {
        Events =
        [
            .. parameters.Texts("exit-when-file-created").Select(NbdExitEvent.FileCreated),
            .. parameters.Texts("exit-when-file-deleted").Select(NbdExitEvent.FileDeleted),
            .. Numbers(parameters, "exit-when-pipe-closed").Select(NbdExitEvent.PipeClosed),
            .. Numbers(parameters, "exit-when-fd-closed").Select(NbdExitEvent.PipeClosed),
            .. Numbers(parameters, "exit-when-process-exits").Select(NbdExitEvent.ProcessExits),
            .. Numbers(parameters, "exit-when-pid-exits").Select(NbdExitEvent.ProcessExits),
            .. parameters.Texts("exit-when-script").Select(NbdExitEvent.Script),
        ],
        Poll = parameters.Delay("exit-when-poll") ?? TimeSpan.FromSeconds(60),
    };

    private static IEnumerable<int> Numbers(NbdParameters parameters, string name)
    {
        foreach (string text in parameters.Texts(name))
        {
            int number;
            try
            {
                number = (int)NbdParse.Integer(text, 0, int.MaxValue);
            }
            catch (FormatException e)
            {
                throw new ArgumentException($"exitwhen: {name}={text}: {e.Message}", name, e);
            }
            yield return number;
        }
    }
}
