using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using NbdKit.Layers;

namespace NbdKit;

/// <summary>
/// One layer of a chain, a plugin or a filter, and its place in it; stable from start to cleanup. The outermost one stands
/// for the whole chain: give it to a server, open it directly, or hand it to a plugin that is made of other
/// chains.
/// </summary>
/// <remarks>
/// A chain lives for as long as somebody uses it. Each server that it is given to uses it from start to stop, and the last
/// one that stops ends it: cleanup, then disposal of the layers. A host that opens it directly, or that wants it to outlive a
/// server, calls <see cref="StartAsync"/> (or just opens it) and ends its own use with <see cref="DisposeAsync"/>. All
/// members are safe for use by several threads.
/// </remarks>
public sealed partial class NbdBackend : IAsyncDisposable
{
    private readonly RequestGate _gate = new();
    private readonly ThreadModel _gateModel;

    private NbdBackend(INbdPlugin plugin)
    {
        Plugin = plugin;
        Name = plugin.Name;
        ThreadModel = plugin.ThreadModel;
        _gateModel = plugin.ThreadModel;
        (plugin as IChainHolder)?.Bind(this);
    }

    private NbdBackend(INbdFilter filter, NbdBackend next)
    {
        Filter = filter;
        Next = next;
        Name = filter.Name;
        ThreadModel = filter.GetThreadModel(next.ThreadModel);
        // A filter that is as parallel as what is below needs no gate of its own; see GateForContext for the outermost one.
        _gateModel = ThreadModel < next.ThreadModel ? ThreadModel : ThreadModel.Parallel;
    }

    /// <summary>The layer's short name, such as <c>memory</c>.</summary>
    public string Name { get; }

    /// <summary>The layer directly below, or null for the plugin.</summary>
    public NbdBackend? Next { get; }

    /// <summary>How many calls this layer takes at once, with everything below it.</summary>
    public ThreadModel ThreadModel { get; }

    internal INbdPlugin? Plugin { get; }

    internal INbdFilter? Filter { get; }

    internal ILogger Logger { get; private set; } = NullLogger.Instance;

    /// <summary>Where the chain logs to, for the chains that a plugin holds; null if nothing is logged.</summary>
    internal ILoggerFactory? LoggerFactory { get; private set; }

    /// <summary>The layer above, or null for the outermost.</summary>
    private NbdBackend? Above { get; set; }

    /// <summary>Builds a chain.</summary>
    /// <param name="plugin">The innermost layer. The instance belongs to this chain alone.</param>
    /// <param name="filters">The layers around it: the first is nearest the client. The instances belong to this chain alone.</param>
    /// <returns>The outermost layer.</returns>
    /// <exception cref="ArgumentException">One instance stands twice in the list.</exception>
    public static NbdBackend Compose(INbdPlugin plugin, params IReadOnlyList<INbdFilter> filters)
    {
        ArgumentNullException.ThrowIfNull(plugin);
        ArgumentNullException.ThrowIfNull(filters);
        var backend = new NbdBackend(plugin);
        for (int i = filters.Count - 1; i >= 0; i--)
        {
            INbdFilter filter = filters[i];
            ArgumentNullException.ThrowIfNull(filter, nameof(filters));
            for (int j = 0; j < i; j++)
            {
                if (ReferenceEquals(filters[j], filter))
                {
                    throw new ArgumentException(
                        $"The same instance of the filter {filter.Name} stands twice in the chain; give each place its own.",
                        nameof(filters));
                }
            }
            var outer = new NbdBackend(filter, backend);
            backend.Above = outer;
            backend = outer;
        }
        return backend;
    }

    /// <summary>Lists the exports of this layer.</summary>
    /// <param name="exports">Receives them.</param>
    /// <param name="readOnly">Whether everything is served read-only.</param>
    /// <param name="connection">The client, or null when the host asks.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(exports);
        RequestGate? gate = LayerGate;
        if (gate is not null)
        {
            await gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            await (Plugin?.ListExportsAsync(exports, readOnly, connection, cancellationToken)
                ?? Filter!.ListExportsAsync(Next!, exports, readOnly, connection, cancellationToken)).ConfigureAwait(false);
        }
        finally
        {
            gate?.Exit();
        }
        if (exports.WantsDefault)
        {
            exports.WantsDefault = false;
            string? name = await DefaultExportAsync(readOnly, connection, cancellationToken).ConfigureAwait(false);
            if (name is not null && !exports.Any(e => e.Name == name))
            {
                exports.Add(name);
            }
        }
    }

    /// <summary>The export that "" stands for at this layer. Remembered for the life of a connection.</summary>
    /// <param name="readOnly">Whether the export is to be opened read-only.</param>
    /// <param name="connection">The client, or null when the host asks.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>Its name, or null if there is none.</returns>
    public async ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (connection is not null && connection.TryGetDefaultExport(this, out string? known))
        {
            return known;
        }
        RequestGate? gate = LayerGate;
        if (gate is not null)
        {
            await gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        string? name;
        try
        {
            name = await (Plugin?.DefaultExportAsync(readOnly, connection, cancellationToken)
                ?? Filter!.DefaultExportAsync(Next!, readOnly, connection, cancellationToken)).ConfigureAwait(false);
        }
        finally
        {
            gate?.Exit();
        }
        if (name is not null)
        {
            Protocol.WireString.Check(name, "default export name");
        }
        connection?.RememberDefaultExport(this, name);
        return name;
    }

    /// <summary>Asks this layer whether a client may connect; an exception means no.</summary>
    /// <param name="connection">The client.</param>
    /// <param name="readOnly">Whether everything is served read-only.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async ValueTask PreconnectAsync(
        NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        RequestGate? gate = LayerGate;
        if (gate is not null)
        {
            await gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            await (Plugin?.PreconnectAsync(connection, readOnly, cancellationToken)
                ?? Filter!.PreconnectAsync(Next!, connection, readOnly, cancellationToken)).ConfigureAwait(false);
        }
        finally
        {
            gate?.Exit();
        }
    }

    /// <summary>The layer's own gate for calls that are not on a context, if it serializes over all connections.</summary>
    private RequestGate? LayerGate => EffectiveGateModel <= ThreadModel.SerializeAllRequests ? _gate : null;

    /// <summary>
    /// The outermost layer gates with the model of the whole chain, as its filters were told; the layers below guard
    /// themselves, for the sake of shared contexts and background work that do not come through the top.
    /// </summary>
    private ThreadModel EffectiveGateModel => Above is null ? ThreadModel : _gateModel;

    /// <summary>The gate that a new context of this layer uses.</summary>
    internal RequestGate? GateForContext() => RequestGate.For(EffectiveGateModel, _gate);
}
