using NbdKit.Layers;
using NbdKit.Plugins.Members;

namespace NbdKit.Plugins;

/// <summary>One disk made of whole chains that are put one after the other.</summary>
/// <remarks>
/// <para>
/// Each client has a context of its own of every chain: their default exports, with the client's connection. A request
/// that crosses a border works on both sides at once. The disk can do what all members can: it takes writes, flushes and
/// FUA, and is multi-conn, if each of them does; trims and prefetches are hints and go to those that take them. Its
/// alignment is the largest of the members', and each member must begin at a multiple of it.
/// </para>
/// <para>
/// The chains belong to the plugin: they start and end with it, unless somebody else uses them too. They guard their thread
/// models themselves. For files alone <see cref="SplitPlugin"/> does the same with less (nbdkit-split-plugin(1)).
/// </para>
/// </remarks>
public sealed class ConcatPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly ChainSet _chains = new("concat", []);

    /// <summary>
    /// The plugin in the catalogue: <c>concat</c>, with the magic parameter <c>file</c>, which is repeatable.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "concat",
        "one disk made of several, one after the other",
        [new NbdParameter("file", "a file or block device; once for each, in order") { IsRequired = true, IsRepeatable = true }],
        parameters => new ConcatPlugin { Chains = FileMembers.Of(parameters) })
    {
        MagicParameter = "file",
    };

    /// <summary>The members in order, at least one. Each is the outermost layer of its chain.</summary>
    /// <exception cref="ArgumentNullException">The list or a chain is null.</exception>
    /// <exception cref="ArgumentException">The list is empty, or a chain is in it twice.</exception>
    public required IReadOnlyList<NbdBackend> Chains
    {
        get => _chains.Chains;
        init => _chains = new ChainSet("concat", ChainSet.Checked("concat", value, nameof(Chains)));
    }

    /// <inheritdoc/>
    public string Name => "concat";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => _chains.ThreadModel;

    void IChainHolder.Bind(NbdBackend backend) => _chains.Bind(backend);

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => _chains.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => _chains.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        InnerContext[] members = await _chains.OpenAllAsync(context, cancellationToken).ConfigureAwait(false);
        try
        {
            NbdExportInfo[] infos = [.. members.Select(member => member.Info)];
            var layout = new ConcatLayout(infos, CombinedInfo.MinimumBlock(infos));
            return new MemberDisk(members, layout, CombinedInfo.Of(infos, layout.Size));
        }
        catch
        {
            await InnerContext.CloseAllAsync(members).ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chains.EndAsync(cancellationToken);

    /// <summary>Disposes of the chains if they were never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();
}
