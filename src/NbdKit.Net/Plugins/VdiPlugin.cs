using NbdKit.Layers;
using NbdKit.Plugins.Images;
using NbdKit.Plugins.Vdi;

namespace NbdKit.Plugins;

/// <summary>Serves the disk in a VirtualBox image (VDI), dynamic or static, read-only.</summary>
/// <remarks>
/// <para>
/// The image is the default export of a chain, which each client opens for itself. The chain belongs to the plugin: it starts and
/// ends with it, unless somebody else uses it too. Blocks that were never written, or were given up, are reported as holes. At
/// most 1 MiB of the image's table is kept in memory for each client.
/// </para>
/// <para>
/// Opening fails with EINVAL if the image is none, of another version than 1.1, or holds the changes to another image; with EIO if
/// it is damaged. nbdkit has no such plugin; its way is to serve what <c>qemu-nbd</c> decodes.
/// </para>
/// </remarks>
public sealed class VdiPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private const int TableMemory = 1 << 20;

    private readonly ChainSet _chain = new("vdi", []);

    /// <summary>The plugin in the catalogue.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "vdi",
        "the disk in a VirtualBox image (VDI), read-only",
        [new NbdParameter("file", "the image") { IsRequired = true }],
        parameters => new VdiPlugin
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
        init => _chain = new ChainSet("vdi", ChainSet.Checked("vdi", [value], nameof(Chain)));
    }

    /// <inheritdoc/>
    public string Name => "vdi";

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
            (VdiMap map, long size) = await VdiMap.OpenAsync(file, tables, cancellationToken).ConfigureAwait(false);
            return new BlockMapHandle(inner, file, map, size);
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
