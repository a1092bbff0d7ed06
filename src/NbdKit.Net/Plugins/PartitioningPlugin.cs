using NbdKit.Layers;
using NbdKit.Plugins.Members;
using NbdKit.Plugins.Partitioning;

namespace NbdKit.Plugins;

/// <summary>One disk with a partition table that the plugin makes, and a whole chain in each partition.</summary>
/// <remarks>
/// <para>
/// Partitions are written and read through to their chains. The table, and the gaps between partitions, cannot be changed: they
/// take writes of what they hold already (gaps hold zeroes), and fail others with EIO. Other parts of such a request may have
/// been written. Trims and prefetches of them do nothing.
/// </para>
/// <para>
/// Each client has a context of its own of every chain: their default exports, with the client's connection. What the disk can
/// do is what its members can do together, as with <see cref="ConcatPlugin"/>. The chains belong to the plugin: they start and
/// end with it, unless somebody else uses them too.
/// </para>
/// <para>
/// A partition takes as many sectors as its chain needs; the rest of the last one is a gap. Opening the disk fails with EINVAL
/// if a member is empty, if a partition would begin inside a block of a member that has a minimum block size, or if the table
/// cannot describe the disk (nbdkit-partitioning-plugin(1)).
/// </para>
/// </remarks>
public sealed partial class PartitioningPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly ChainSet _chains = new("partitioning", []);

    /// <summary>The partitions in order, at least one.</summary>
    /// <exception cref="ArgumentNullException">The list, a member or a chain is null.</exception>
    /// <exception cref="ArgumentException">The list is empty, or a chain is in it twice.</exception>
    public required IReadOnlyList<PartitioningMember> Partitions
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Partitions));
            field = [.. value];
            foreach (PartitioningMember member in field)
            {
                ArgumentNullException.ThrowIfNull(member, nameof(Partitions));
            }
            _chains = new ChainSet(
                "partitioning", ChainSet.Checked("partitioning", [.. field.Select(member => member.Chain)], nameof(Partitions)));
        }
    }

    /// <summary>The kind of table. <see cref="PartitioningType.Auto"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of the kinds.</exception>
    public PartitioningType Type
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)value, (uint)PartitioningType.Gpt, nameof(Type));
            field = value;
        }
    }

    /// <summary>
    /// The GUID of a disk with a GPT. Those of its partitions are made from it and their places: the same disk GUID makes the same
    /// table. Random by default, once for the plugin.
    /// </summary>
    public Guid DiskGuid { get; init; } = Guid.NewGuid();

    /// <summary>
    /// The size in bytes of the sectors in which the table counts, or null to take the largest minimum block size of the
    /// members if that is 4,096, and 512 if not: the rule by which <see cref="Filters.PartitionFilter"/> reads it.
    /// </summary>
    /// <value>Null by default; otherwise 512 or 4,096.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is neither.</exception>
    public long? SectorSize
    {
        get;
        init
        {
            if (value is not (null or 512 or 4096))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(SectorSize), value, "The size of a sector is 512 or 4096 bytes.");
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "partitioning";

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
            long block = CombinedInfo.MinimumBlock(infos);
            var plan = PartitioningPlan.Of(
                Type, Partitions, [.. infos.Select(info => info.Size)], SectorSize ?? (block == 4096 ? 4096 : 512), block);
            var layout = new PartitioningLayout(plan);
            IEnumerable<TablePiece> tables = plan.IsGpt
                ? GptWriter.Write(plan, Partitions, DiskGuid)
                : MbrWriter.Write(plan, Partitions);
            var frame = new FramePlugin(
                [.. tables.Select(piece => piece with { Offset = layout.Before(PartitioningLayout.Frame, piece.Offset) })],
                layout.Before(PartitioningLayout.Frame, layout.Size));
            InnerContext table = await InnerContext.OpenAsync(
                NbdBackend.Compose(frame), _chains.Holder, context.ReadOnly, "", connection: null, cancellationToken)
                .ConfigureAwait(false);
            members = [table, .. members];
            NbdExportInfo info = CombinedInfo.Of(infos, layout.Size) with
            {
                // The frame knows its extents, whatever the members do; the depth is the only context that it has beside them.
                CanExtents = true,
                MetaContexts = [ExtentList.BaseAllocation, ExtentList.AllocationDepth],
                WideMetaContexts = [],
            };
            return new MemberDisk(members, layout, info);
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
