using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins;

/// <summary>Serves the disk in an image of Hyper-V's second format (VHDX), read-only.</summary>
/// <remarks>
/// <para>
/// Reads fixed and dynamic images, and differencing ones if <see cref="Parent"/> is given. The checksums of the headers and
/// of the region tables are verified, and the copy is used if one is wrong. If an image was not closed, the changes in its log,
/// of at most 8 MiB, are read as if they were in place; the image stays as it is. They are kept in memory for each context.
/// </para>
/// <para>
/// Blocks that the image does not have are reported as holes; of those that the parent has, the parent is asked. A fixed
/// image has all its blocks. At most 1 MiB of tables is kept for each context.
/// </para>
/// <para>
/// Opening fails with EINVAL if the image is damaged or not of a kind that is read; requests for a part of it fail with EIO
/// if the image is damaged there. The chains belong to the plugin: they start and end with it, unless somebody else uses them
/// too. nbdkit has no such plugin; the format is Microsoft's "VHDX Format Specification" (MS-VHDX).
/// </para>
/// </remarks>
public sealed class VhdxPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private ChainSet _chains = new("vhdx", []);

    /// <summary>The plugin in the catalogue: <c>vhdx</c>, with the magic parameter <c>file</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "vhdx",
        "the disk in a VHDX image, read-only",
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

    /// <summary>The image: the default export of a chain.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Chain));
            field = value;
            _chains = new ChainSet("vhdx", [value, .. Parent is null ? Array.Empty<NbdBackend>() : [Parent]]);
        }
    }

    /// <summary>
    /// The disk (not the image) that a differencing image is the changes to: for example the chain of another
    /// <see cref="VhdxPlugin"/>, which may have a parent itself. Opened only if the image needs it. The host finds it.
    /// </summary>
    /// <remarks>
    /// If the chain is a <see cref="VhdxPlugin"/> without filters, its data must have the id that the differencing image names
    /// (<c>parent_linkage</c>), which changes whenever the data do, else opening fails with EINVAL; any other disk is taken as it is.
    /// </remarks>
    /// <value>Null by default: differencing images are refused.</value>
    public NbdBackend? Parent
    {
        get;
        init
        {
            field = value;
            _chains = new ChainSet("vhdx", [.. _chains.Chains, .. value is null ? Array.Empty<NbdBackend>() : [value]]);
        }
    }

    /// <inheritdoc/>
    public string Name => "vhdx";

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
            VhdxImage image = await VhdxImage.OpenAsync(
                view, Parent is null ? null : token => sources.OpenAsync(Parent, token), cancellationToken).ConfigureAwait(false);
            return new MappedHandle(image, sources.Contexts);
        }
        catch
        {
            await sources.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chains.EndAsync(cancellationToken);

    /// <summary>Disposes of the chains if they were never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();

    private static VhdxPlugin FromFiles(string file, ReadOnlySpan<string> parents) => new()
    {
        Parent = parents.IsEmpty ? null : NbdBackend.Compose(FromFiles(parents[0], parents[1..])),
        Chain = NbdBackend.Compose(new FilePlugin { Path = file }),
    };
}
