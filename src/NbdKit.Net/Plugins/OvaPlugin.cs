using System.Text;
using NbdKit.Filters.Tar;
using NbdKit.Layers;
using NbdKit.Plugins.Images;
using NbdKit.Protocol;

namespace NbdKit.Plugins;

/// <summary>Serves the files in an OVA, a virtual appliance in one tar archive, without unpacking it.</summary>
/// <remarks>
/// <para>
/// Each file is an export of its name; the default export is the first disk: the first file that is called
/// <c>.vmdk</c>, <c>.vhd</c>, <c>.vhdx</c>, <c>.vdi</c>, <c>.qcow2</c>, <c>.img</c> or <c>.raw</c>. Files are served as they
/// are, and may be written in place if the chain can be written; the manifest of the archive, which has their checksums, does
/// not change with them. With <see cref="Decode"/> the disks in files that are VMDK images are served instead, read-only.
/// </para>
/// <para>
/// The archive is read anew for each open and each list: its headers, not its content. What makes an archive unusable for
/// <see cref="NbdKit.Filters.TarFilter"/> does so here. nbdkit has no such plugin: there one writes the tar filter over the
/// file plugin, and has to know the name.
/// </para>
/// <para>The chain belongs to the plugin: it starts and ends with it, unless somebody else uses it too.</para>
/// </remarks>
public sealed class OvaPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private static readonly string[] DiskSuffixes = [".vmdk", ".vhd", ".vhdx", ".vdi", ".qcow2", ".img", ".raw"];

    private readonly ChainSet _chains = new("ova", []);

    /// <summary>The plugin in the catalogue: <c>ova</c>, with the magic parameter <c>file</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "ova",
        "the files in an OVA, or the disks in them, as exports",
        [
            new NbdParameter("file", "the OVA") { IsRequired = true },
            new NbdParameter("decode", "whether the disks in VMDK images are served, read-only, and not the images (default: false)"),
        ],
        parameters => new OvaPlugin
        {
            Chain = NbdBackend.Compose(new FilePlugin { Path = parameters.Required("file") }),
            Decode = parameters.Boolean("decode") ?? false,
        })
    {
        MagicParameter = "file",
    };

    /// <summary>The archive: the default export of a chain.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get => _chains.Chains[0];
        init => _chains = new ChainSet("ova", ChainSet.Checked("ova", [value], nameof(Chain)));
    }

    /// <summary>
    /// Whether a file that is a VMDK image is served as the disk that is in it, read-only, as <see cref="VmdkPlugin"/> does.
    /// </summary>
    /// <value>False by default: all files are served as they are.</value>
    public bool Decode { get; init; }

    /// <inheritdoc/>
    public string Name => "ova";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => _chains.ThreadModel;

    void IChainHolder.Bind(NbdBackend backend) => _chains.Bind(backend);

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => _chains.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => _chains.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(exports);
        await FindAsync(connection, member => Add(member.Name), cancellationToken).ConfigureAwait(false);

        bool Add(string name)
        {
            // An archive may have names that an export cannot have.
            if (name.Length > 0 && !name.Contains('\0', StringComparison.Ordinal) && Encoding.UTF8.GetByteCount(name) <= WireString.MaximumBytes)
            {
                exports.Add(name);
            }
            return exports.Count == ExportList.MaximumCount;
        }
    }

    /// <inheritdoc/>
    public async ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => (await FindAsync(
            connection,
            member => DiskSuffixes.Any(suffix => member.Name.EndsWith(suffix, StringComparison.OrdinalIgnoreCase)),
            cancellationToken).ConfigureAwait(false))?.Name;

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        InnerContext inner = await InnerContext.OpenAsync(
            Chain, _chains.Holder, context.ReadOnly, exportName: "", context.Connection, cancellationToken).ConfigureAwait(false);
        try
        {
            TarMember member = await ScanAsync(inner.Next, candidate => candidate.Name == context.ExportName, cancellationToken)
                .ConfigureAwait(false)
                ?? throw new NbdException(NbdError.InvalidArgument, "the archive has no file of this name");
            member.RequireServable(inner.Next);
            return (Decode ? await DecodeAsync(inner, member, context, cancellationToken).ConfigureAwait(false) : null)
                ?? new WindowDisk(
                    inner, member.Offset, inner.Info with { Size = member.Size, CanonicalName = null, Description = null });
        }
        catch
        {
            await inner.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(CancellationToken cancellationToken) => _chains.EndAsync(cancellationToken);

    /// <summary>Disposes of the chain if it was never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();

    /// <summary>Opens the disk in a member; null if it is not an image.</summary>
    private async ValueTask<INbdPluginHandle?> DecodeAsync(
        InnerContext inner, TarMember member, NbdOpenContext context, CancellationToken cancellationToken)
    {
        var sources = new MappedSources(_chains.Holder, context.Connection);
        MappedView view = sources.Add(inner, member.Offset, member.Size);
        byte[] start = new byte[Math.Min(64, member.Size)];
        await view.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
        return VmdkImage.IsKnown(start)
            ? new MappedHandle(await VmdkImage.OpenAsync(view, null, cancellationToken).ConfigureAwait(false), sources.Contexts)
            : null;
    }

    private async ValueTask<TarMember?> FindAsync(
        NbdConnection? connection, Func<TarMember, bool> isWanted, CancellationToken cancellationToken)
    {
        InnerContext inner = await InnerContext.OpenAsync(
            Chain, _chains.Holder, readOnly: true, exportName: "", connection, cancellationToken).ConfigureAwait(false);
        try
        {
            return await ScanAsync(inner.Next, isWanted, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await inner.CloseAsync().ConfigureAwait(false);
        }
    }

    private static async ValueTask<TarMember?> ScanAsync(
        NextContext archive, Func<TarMember, bool> isWanted, CancellationToken cancellationToken)
    {
        var scanner = new TarScanner(archive, limit: null);
        TarMember? member;
        do
        {
            member = await scanner.NextAsync(cancellationToken).ConfigureAwait(false);
        }
        while (member is not null && !isWanted(member));
        return member;
    }
}
