using NbdKit.Layers;
using NbdKit.Protocol;

namespace NbdKit.Plugins;

/// <summary>
/// Many exports, each served by a chain of its own: a router by export name. The exports are a fixed dictionary, or are
/// found anew for each open by a delegate, or both.
/// </summary>
/// <remarks>
/// <para>
/// Each client gets a context of its own of the chain behind the name it asked for, with its connection, so that the
/// layers of the chain know whom they serve. Their <see cref="INbdPlugin.PreconnectAsync"/> is called when the client
/// opens an export of the chain for the first time, since only then it is known which chain that is: a refusal there
/// fails that open and not the connection.
/// </para>
/// <para>
/// The chains in <see cref="Exports"/> belong to the plugin: they start and end with it. What <see cref="Resolver"/>
/// returns is started when it is first opened, and ends when its last context has closed; with
/// <see cref="ExportChain.KeepRunning"/> it runs until the plugin stops. In both cases a chain lives on for as long as
/// somebody else uses it: a server, another plugin, or the host, which called <see cref="NbdBackend.StartAsync"/>. A
/// resolver that gives the same chain to several clients needs one of these, else the chain may have ended when the next
/// client comes; one that composes a chain for each open needs nothing.
/// </para>
/// <para>
/// Chains guard their thread models themselves, so that clients of one export never wait for those of another. To
/// replace the chain behind an export while it is served, put a <see cref="SwitchPlugin"/> there. nbdkit has no such
/// plugin: it runs one process for each export.
/// </para>
/// </remarks>
public sealed class ExportsPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly HashSet<NbdBackend> _kept = [];
    private Dictionary<string, ExportChain> _exports = new(StringComparer.Ordinal);
    private ChainSet _chains = new("exports", []);

    /// <summary>The exports by name. None by default.</summary>
    /// <exception cref="ArgumentNullException">The dictionary or an export in it is null.</exception>
    /// <exception cref="ArgumentException">A name breaks the protocol's rules for strings.</exception>
    public IReadOnlyDictionary<string, ExportChain> Exports
    {
        get => _exports;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            foreach ((string name, ExportChain export) in value)
            {
                WireString.Check(name, "export name");
                ArgumentNullException.ThrowIfNull(export, nameof(Exports));
            }
            _exports = new Dictionary<string, ExportChain>(value, StringComparer.Ordinal);
            _chains = new ChainSet("exports", _exports.Values.Select(export => export.Chain));
        }
    }

    /// <summary>
    /// Finds the export of a name that is not in <see cref="Exports"/>, or returns null if there is none. Called for each
    /// open, possibly several at once, with the name and the client; also twice for one client, which often asks about an
    /// export before it uses it. An exception fails the open. Null by default: only <see cref="Exports"/> exist.
    /// </summary>
    public Func<NbdOpenContext, CancellationToken, ValueTask<ExportChain?>>? Resolver { get; init; }

    /// <summary>
    /// Adds to the list of exports, after those in <see cref="Exports"/>, what <see cref="Resolver"/> would find. The client
    /// is null if the host asks. Null by default.
    /// </summary>
    public Func<ExportList, NbdConnection?, CancellationToken, ValueTask>? Lister { get; init; }

    /// <summary>
    /// The name of the export that clients get when they ask for "". Null by default: "" is an export only if
    /// <see cref="Exports"/> has one of that name.
    /// </summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string? DefaultExport
    {
        get;
        init
        {
            if (value is not null)
            {
                WireString.Check(value, "default export name");
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "exports";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => _chains.ThreadModel;

    void IChainHolder.Bind(NbdBackend backend) => _chains.Bind(backend);

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => _chains.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(exports);
        foreach ((string name, ExportChain export) in _exports)
        {
            exports.Add(name, export.Description);
        }
        if (Lister is not null)
        {
            await Lister(exports, connection, cancellationToken).ConfigureAwait(false);
        }
        if (DefaultExport is not null)
        {
            exports.AddDefault();
        }
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => new(DefaultExport ?? (_exports.ContainsKey("") ? "" : null));

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        bool isFixed = _exports.TryGetValue(context.ExportName, out ExportChain? export);
        if (!isFixed && Resolver is not null)
        {
            export = await Resolver(context, cancellationToken).ConfigureAwait(false);
        }
        if (export is null)
        {
            throw new NbdException(NbdError.InvalidArgument, "there is no export of this name");
        }
        InnerContext inner;
        try
        {
            inner = await InnerContext.OpenAsync(
                export.Chain,
                _chains.Holder,
                context.ReadOnly || export.ReadOnly,
                export.ExportName,
                context.Connection,
                cancellationToken).ConfigureAwait(false);
        }
        catch (ObjectDisposedException e) when (!isFixed)
        {
            throw new NbdException(NbdError.IoError, "the chain behind this export has ended", e);
        }
        if (!isFixed && export.KeepRunning)
        {
            await KeepAsync(export.Chain).ConfigureAwait(false);
        }
        // The name that the chain goes by is its own business.
        return new ChainHandle(inner, inner.Info with
        {
            CanonicalName = null,
            Description = export.Description ?? inner.Info.Description,
        });
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(CancellationToken cancellationToken)
    {
        NbdBackend[] kept;
        lock (_lock)
        {
            kept = [.. _kept];
            _kept.Clear();
        }
        foreach (NbdBackend chain in kept)
        {
            await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
        await _chains.EndAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Disposes of the chains in <see cref="Exports"/> if they were never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();

    /// <summary>Called while a context of the chain is open, so that it is running.</summary>
    private async ValueTask KeepAsync(NbdBackend chain)
    {
        lock (_lock)
        {
            if (!_kept.Add(chain))
            {
                return;
            }
        }
        await chain.AcquireAsync(_chains.Holder.LoggerFactory, host: false, CancellationToken.None).ConfigureAwait(false);
    }
}
