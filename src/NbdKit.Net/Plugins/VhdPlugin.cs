using NbdKit.Layers;
using NbdKit.Plugins.Images;
using NbdKit.Plugins.Vhd;

namespace NbdKit.Plugins;

/// <summary>Serves the disk in a Virtual PC or Hyper-V image (VHD), fixed or dynamic, read-only.</summary>
/// <remarks>
/// <para>
/// The image is the default export of a chain, which each client opens for itself. The chain belongs to the plugin: it starts and
/// ends with it, unless somebody else uses it too. Blocks that were never written are reported as holes. At most 1 MiB of the
/// image's table is kept in memory for each client.
/// </para>
/// <para>
/// The size of the disk is the one that the footer names, except for images that Virtual PC made, or QEMU in its name: they mean
/// the geometry. If the footer is damaged, its copy at the beginning of a dynamic disk is used. Opening fails with EINVAL if the
/// image is none, or holds the changes to another one (a differencing disk); with EIO if it is damaged. nbdkit has no such plugin;
/// its way is to serve what <c>qemu-nbd</c> decodes.
/// </para>
/// </remarks>
public sealed class VhdPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private const int TableMemory = 1 << 20;

    private readonly ChainSet _chain = new("vhd", []);

    /// <summary>The plugin in the catalogue.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "vhd",
        "the disk in a Virtual PC image (VHD), read-only",
        [new NbdParameter("file", "the image") { IsRequired = true }],
        parameters => new VhdPlugin
        {
            Chain = NbdBackend.Compose(new FilePlugin { Path = parameters.Required("file") }),
        })
    {
        MagicParameter = "file",
    };

    /// <summary>The outermost layer of the chain that serves the bytes of the image.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get => _chain.Chains[0];
        init => _chain = new ChainSet("vhd", ChainSet.Checked("vhd", [value], nameof(Chain)));
    }

    /// <inheritdoc/>
    public string Name => "vhd";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => _chain.ThreadModel;

    void IChainHolder.Bind(NbdBackend backend) => _chain.Bind(backend);

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => _chain.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => _chain.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        InnerContext inner = await InnerContext.OpenAsync(
            Chain, _chain.Holder, readOnly: true, "", context.Connection, cancellationToken).ConfigureAwait(false);
        try
        {
            var file = new ImageDisk(inner.Next);
            var tables = new TablePages(file, new BlockCache(TableMemory), 4096);
            Footer footer = await Footer.ReadAsync(file, cancellationToken).ConfigureAwait(false);
            IBlockMap map = footer.IsDynamic
                ? await DynamicMap.OpenAsync(footer, file, tables, cancellationToken).ConfigureAwait(false)
                : new FixedMap();
            return new BlockMapHandle(inner, file, map, footer.Size);
        }
        catch
        {
            await inner.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chain.EndAsync(cancellationToken);

    /// <summary>Disposes of the chain if it was never started.</summary>
    public ValueTask DisposeAsync() => _chain.DiscardAsync();
}
