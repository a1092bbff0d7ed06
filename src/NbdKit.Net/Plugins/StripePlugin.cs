using NbdKit.Layers;
using NbdKit.Plugins.Members;

namespace NbdKit.Plugins;

/// <summary>One disk whose stripes go round several chains (RAID 0), so that large requests use all of them at once.</summary>
/// <remarks>
/// <para>
/// The size is that of the smallest member, rounded down to whole stripes, times their number. Stripe 0 is on the first
/// member, stripe 1 on the second, and so on. The loss of one member is the loss of the disk.
/// </para>
/// <para>
/// Each client has a context of its own of every chain: their default exports, with the client's connection. The disk can
/// do what all members can: it takes writes, flushes and FUA, and is multi-conn, if each of them does; trims and prefetches
/// are hints and go to those that take them. Its alignment is the largest of the members', which the stripe size must be a
/// multiple of.
/// </para>
/// <para>
/// The chains belong to the plugin: they start and end with it, unless somebody else uses them too. They guard their thread
/// models themselves. nbdkit has no such plugin.
/// </para>
/// </remarks>
public sealed class StripePlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly ChainSet _chains = new("stripe", []);

    /// <summary>
    /// The plugin in the catalogue: <c>stripe</c>, with the magic parameter <c>file</c>, which is repeatable.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "stripe",
        "one disk striped over several (RAID 0)",
        [
            new NbdParameter("file", "a file or block device; once for each, in order") { IsRequired = true, IsRepeatable = true },
            new NbdParameter("stripe", "size of a stripe (default: 64K)"),
        ],
        parameters => new StripePlugin
        {
            Chains = FileMembers.Of(parameters),
            StripeSize = parameters.Size("stripe") ?? 65_536,
        })
    {
        MagicParameter = "file",
    };

    /// <summary>The members in order, at least one. Each is the outermost layer of its chain.</summary>
    /// <exception cref="ArgumentNullException">The list or a chain is null.</exception>
    /// <exception cref="ArgumentException">The list is empty, or a chain is in it twice.</exception>
    public required IReadOnlyList<NbdBackend> Chains
    {
        get => _chains.Chains;
        init => _chains = new ChainSet("stripe", ChainSet.Checked("stripe", value, nameof(Chains)));
    }

    /// <summary>Size of a stripe in bytes: a multiple of 512 from 512 up to 1 GiB, 64 KiB by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of these.</exception>
    public long StripeSize
    {
        get;
        init => field = value is >= 512 and <= 1 << 30 && value % 512 == 0
            ? value
            : throw new ArgumentOutOfRangeException(
                nameof(StripeSize), value, "stripe: the stripe size must be a multiple of 512 from 512 to 1 GiB.");
    } = 65_536;

    /// <inheritdoc/>
    public string Name => "stripe";

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
            var layout = new StripeLayout(infos, CombinedInfo.MinimumBlock(infos), StripeSize);
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
