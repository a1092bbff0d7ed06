using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit;

/// <summary>
/// An opened layer, as the layer above it (or the server, or the host) uses it. It knows what the layer can do, refuses
/// what it cannot, emulates what it only promised, and keeps the order of its life: open, prepare, data calls, finalize,
/// close.
/// </summary>
/// <remarks>
/// <para>
/// Data calls may come from several threads at once; the layer's thread model is enforced here. What is attached with
/// <see cref="NbdContext.SetNext"/>, or was opened with <see cref="NbdContext.OpenNextAsync(CancellationToken)"/>, is
/// prepared, finalized and closed by the library. What a filter opens with <see cref="NbdBackend.OpenNextAsync"/> and does
/// not attach is its own to prepare, finalize and close. Breaking a rule throws <see cref="InvalidOperationException"/>
/// with the rule in its message.
/// </para>
/// <para>Source: nbdkit-filter(3), "Next"; rules and emulations are in the other parts of this class.</para>
/// </remarks>
public sealed partial class NextContext : IAsyncDisposable
{
    private readonly NbdOpenContext _own;
    private readonly NbdContext? _filterContext;
    private readonly RequestGate? _gate;
    private readonly bool _isSentinel;
    private INbdPluginHandle? _plugin;
    private INbdFilterHandle? _filter;
    private NbdExportInfo? _info;
    private volatile ContextState _state;

    internal NextContext(NbdOpenContext own, bool unowned)
    {
        _own = own;
        _filterContext = own as NbdContext;
        _gate = own.Backend.GateForContext();
        IsUnowned = unowned;
        CountsCalls = true;
    }

    /// <summary>Stands for "nothing attached"; every call on it throws.</summary>
    internal static NextContext Detached { get; } = new();

    private NextContext()
    {
        _own = null!;
        _isSentinel = true;
        _state = ContextState.Closed;
    }

    /// <summary>Whether a context of the layer below is attached; false for what a filter gets that opened none.</summary>
    public bool IsAttached => !_isSentinel;

    /// <summary>The layer that is opened here.</summary>
    /// <exception cref="InvalidOperationException">No context is attached.</exception>
    public NbdBackend Backend => Own.Backend;

    /// <summary>What the plugin opened, if the layer is one.</summary>
    internal INbdPluginHandle? PluginHandle => _plugin;

    /// <summary>Whether the layer was opened read-only.</summary>
    public bool ReadOnly => Own.ReadOnly;

    /// <summary>The name of the export that is opened here.</summary>
    public string ExportName => Own.ExportName;

    /// <summary>Whether the context is tied to no connection.</summary>
    public bool IsShared => Own.IsShared;

    /// <summary>What the layer is and can do, with all gates applied.</summary>
    /// <exception cref="InvalidOperationException">The context was not prepared.</exception>
    public NbdExportInfo Info => _info ?? throw NotUsable();

    /// <summary>
    /// Whether it was opened for no other context: a shared one, or the host's. It ends by the hand of who opened it, at the
    /// latest when the chain stops, and may be attached to several contexts.
    /// </summary>
    internal bool IsUnowned { get; }

    /// <summary>What has become of it, with its verb.</summary>
    internal string StateText
        => _state == ContextState.PrepareFailed ? "failed to prepare" : "is " + _state.ToString().ToLowerInvariant();

    /// <summary>
    /// Set while data calls take hold of the context by themselves. Off where the caller does it for a whole call
    /// (an attached context), or counts on its own (the server's transmission).
    /// </summary>
    internal bool CountsCalls { get; set; }

    /// <summary>The context of the layer above that it was opened for, or null.</summary>
    internal NbdContext? Owner { get; set; }

    /// <summary>Set for a context that holds the only place of a chain that takes one connection at a time.</summary>
    internal RequestGate? ConnectionGate { get; set; }

    private NbdOpenContext Own => _isSentinel ? throw NotUsable() : _own;

    private ValueTask EnterGateAsync(CancellationToken cancellationToken)
        => _gate is null ? default : _gate.EnterAsync(cancellationToken);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private InvalidOperationException NotUsable()
        => _isSentinel
            ? new InvalidOperationException("No context of the layer below is attached: the filter opened none, or detached it.")
            : new InvalidOperationException($"The context of {Backend.Name} {StateText}: it takes calls between prepare and finalize only.");
}
