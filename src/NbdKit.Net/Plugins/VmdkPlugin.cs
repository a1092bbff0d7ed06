using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins;

/// <summary>Serves the disk in a VMware image (VMDK), read-only.</summary>
/// <remarks>
/// <para>
/// Reads what VMware's hosted products and QEMU write: <c>monolithicSparse</c> and <c>streamOptimized</c> (compressed, as in
/// OVA files) from one file, <c>monolithicFlat</c>, <c>twoGbMaxExtentSparse</c>, <c>twoGbMaxExtentFlat</c> and <c>vmfs</c>
/// from a descriptor and the files that it names. The sparse formats of ESX itself (COWD, SESparse), raw device mappings and
/// snapshots, which need their parents, are refused.
/// </para>
/// <para>
/// What the image does not have is reported as holes. Of flat extents the file below is asked. At most 1 MiB of tables and
/// 4 MiB of decompressed grains are kept for each context. A compressed image is read in any order, but best from its start
/// to its end.
/// </para>
/// <para>
/// Opening fails with EINVAL if the image is damaged or not of a kind that is read; requests for a part of it fail with EIO
/// if the image is damaged there. The chains belong to the plugin: they start and end with it, unless somebody else uses them
/// too. nbdkit has no such plugin; the format is described in VMware's "Virtual Disk Format 5.0".
/// </para>
/// </remarks>
public sealed class VmdkPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly ChainSet _chains = new("vmdk", []);

    /// <summary>The plugin in the catalogue: <c>vmdk</c>, with the magic parameter <c>file</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "vmdk",
        "the disk in a VMware image, read-only",
        [new NbdParameter("file", "the image, or the descriptor; other files it names are looked for in its directory") { IsRequired = true }],
        parameters => new VmdkPlugin
        {
            Chain = NbdBackend.Compose(new FilePlugin { Path = parameters.Required("file") }),
            ExtentResolver = VmdkFiles.Beside(parameters.Required("file")),
        })
    {
        MagicParameter = "file",
    };

    /// <summary>The image, or the descriptor of several files: the default export of a chain.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get => _chains.Chains[0];
        init => _chains = new ChainSet("vmdk", ChainSet.Checked("vmdk", [value], nameof(Chain)));
    }

    /// <summary>
    /// Finds the chain of a file that the descriptor names, or returns null if there is none. The name comes from the image,
    /// which may say anything. Called on each open, once for each name (of which there may be 512), possibly by several clients at once. A chain that is
    /// returned is started when it is opened and ends with its last context, unless somebody else uses it too: a resolver
    /// composes a new one each time, or returns one that the host has started.
    /// </summary>
    /// <value>Null by default: only images of one file are read.</value>
    public Func<string, NbdBackend?>? ExtentResolver { get; init; }

    /// <inheritdoc/>
    public string Name => "vmdk";

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
        var sources = new MappedSources(_chains.Holder, context.Connection);
        try
        {
            MappedView view = await sources.OpenAsync(Chain, cancellationToken).ConfigureAwait(false);
            VmdkImage image = await VmdkImage.OpenAsync(
                view, ExtentResolver is null ? null : ResolveAsync, cancellationToken).ConfigureAwait(false);
            return new MappedHandle(image, sources.Contexts);
        }
        catch
        {
            await sources.CloseAsync().ConfigureAwait(false);
            throw;
        }

        ValueTask<MappedView> ResolveAsync(string name, CancellationToken token)
            => ExtentResolver(name) is { } chain
                ? sources.OpenAsync(chain, token)
                : throw new NbdException(NbdError.InvalidArgument, $"the VMDK descriptor names the file '{name}', which is not there");
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chains.EndAsync(cancellationToken);

    /// <summary>Disposes of the chain if it was never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();
}
