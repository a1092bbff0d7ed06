using NbdKit.Layers;
using NbdKit.Plugins.Images;
using NbdKit.Plugins.Vhd;

namespace NbdKit.Plugins;

/// <summary>Serves the disk in a Virtual PC or Hyper-V image (VHD), read-only.</summary>
/// <remarks>
/// <para>
/// Reads fixed and dynamic images, and differencing ones if <see cref="Parent"/> is given: what the image does not have is read
/// from the parent, which also says what of it is a hole; a disk that is longer than its parent goes on with a hole.
/// </para>
/// <para>
/// The image is the default export of a chain, which each client opens for itself. The chains belong to the plugin: they start and
/// end with it, unless somebody else uses them too. Blocks that were never written are reported as holes. At most 1 MiB of the
/// image's table is kept in memory for each client.
/// </para>
/// <para>
/// The size of the disk is the one that the footer names, except for images that Virtual PC made, or QEMU in its name: they mean
/// the geometry. If the footer is damaged, its copy at the beginning of a dynamic disk is used. Opening fails with EINVAL if the
/// image is none, or if it is a differencing one without its parent; with EIO if it is damaged. nbdkit has no such plugin;
/// its way is to serve what <c>qemu-nbd</c> decodes.
/// </para>
/// </remarks>
public sealed class VhdPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private const int TableMemory = 1 << 20;

    private ChainSet _chains = new("vhd", []);

    /// <summary>The plugin in the catalogue.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "vhd",
        "the disk in a Virtual PC image (VHD), read-only",
        [
            new NbdParameter("file", "the image") { IsRequired = true },
            new NbdParameter("parent", "the image that a differencing one is the changes to; again for the parent of that one, and so on")
            {
                IsRepeatable = true,
            },
        ],
        parameters => FromFiles(parameters.Required("file"), [.. parameters.Texts("parent")]))
    {
        MagicParameter = "file",
    };

    /// <summary>The outermost layer of the chain that serves the bytes of the image.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Chain));
            field = value;
            _chains = new ChainSet("vhd", [value, .. Parent is null ? Array.Empty<NbdBackend>() : [Parent]]);
        }
    }

    /// <summary>
    /// The disk (not the image) that a differencing image is the changes to: for example the chain of another
    /// <see cref="VhdPlugin"/>, which may have a parent itself. Opened only if the image needs it. The host finds it.
    /// </summary>
    /// <remarks>
    /// If the chain is a <see cref="VhdPlugin"/> without filters, its image must have the id that the differencing one names, else
    /// opening fails with EINVAL; any other disk is taken as it is. The time of the last change of the parent is never checked, as
    /// copying a file changes it.
    /// </remarks>
    /// <value>Null by default: differencing images are refused.</value>
    public NbdBackend? Parent
    {
        get;
        init
        {
            field = value;
            _chains = new ChainSet("vhd", [.. _chains.Chains, .. value is null ? Array.Empty<NbdBackend>() : [value]]);
        }
    }

    /// <inheritdoc/>
    public string Name => "vhd";

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
        List<InnerContext> opened = [];
        try
        {
            InnerContext inner = await OpenChainAsync(Chain).ConfigureAwait(false);
            InnerContext? parent = null;
            var file = new ImageDisk(inner.Next);
            var tables = new TablePages(file, new BlockCache(TableMemory), 4096);
            Footer footer = await Footer.ReadAsync(file, cancellationToken).ConfigureAwait(false);
            IBlockMap map = new FixedMap();
            if (footer.IsDynamic)
            {
                DynamicHeader header = await DynamicHeader.ReadAsync(footer, file, cancellationToken).ConfigureAwait(false);
                map = footer.HasParent ? new DifferencingMap(header, tables, file.Size) : new DynamicMap(header, tables, file.Size);
                if (footer.HasParent)
                {
                    parent = await OpenChainAsync(Parent ?? throw Footer.Refused(
                        $"the VHD image holds only the changes to its parent '{header.ParentName}', which was not given"))
                        .ConfigureAwait(false);
                    CheckParent(header, parent);
                }
            }
            return new BlockMapHandle(inner, file, map, footer.Size, parent) { Id = footer.Id };
        }
        catch
        {
            await InnerContext.CloseAllAsync(opened).ConfigureAwait(false);
            throw;
        }

        async ValueTask<InnerContext> OpenChainAsync(NbdBackend chain)
        {
            InnerContext inner = await InnerContext.OpenAsync(
                chain, _chains.Holder, readOnly: true, "", context.Connection, cancellationToken).ConfigureAwait(false);
            opened.Add(inner);
            return inner;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chains.EndAsync(cancellationToken);

    /// <summary>Disposes of the chain if it was never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();

    private static VhdPlugin FromFiles(string file, ReadOnlySpan<string> parents) => new()
    {
        Parent = parents.IsEmpty ? null : NbdBackend.Compose(FromFiles(parents[0], parents[1..])),
        Chain = NbdBackend.Compose(new FilePlugin { Path = file }),
    };

    private static void CheckParent(DynamicHeader header, InnerContext parent)
    {
        if (parent.Next.PluginHandle is BlockMapHandle { Id: var id } && parent.Next.Backend.Plugin is VhdPlugin && id != header.ParentId)
        {
            throw Footer.Refused(
                $"the VHD image holds the changes to '{header.ParentName}' with the id {header.ParentId}; the parent that was given has {id}");
        }
    }
}
