using NbdKit.Layers;
using NbdKit.Plugins.Members;
using NbdKit.Plugins.Mirror;

namespace NbdKit.Plugins;

/// <summary>
/// One disk of which every chain holds a copy (RAID 1): changes go to all of them, a read to one. A member that fails is
/// dropped and reported, and the mirror goes on while one is left; members are added, recovered and brought in sync while
/// clients are served.
/// </summary>
/// <remarks>
/// <para>
/// Writes, trims, zeroes and flushes go to all members in parallel, and succeed if they did on at least one that is in
/// sync; a member on which they failed is dropped. If they failed on all, the client is told, and the first member in sync
/// is kept with all the others dropped, since nobody knows what each of them did; only if all refused, such as with EPERM
/// or EINVAL, all are kept. A read that fails is tried on the other members; those it failed on are dropped if another one
/// could do it. A member that fails to open for a client is dropped too, unless it refused the client with EPERM or EINVAL.
/// The last member in sync is never dropped.
/// </para>
/// <para>
/// Changes that overlap, of whatever clients, reach all members in the same order, and reads of such a range wait for
/// them, so that members do not drift apart and no read goes back in time. What a trimmed range holds may differ; extents
/// say what is true of all members. A change that has begun is finished on all members even if its client is gone.
/// </para>
/// <para>
/// Each client has a context of its own of every member: their default exports, with the client's connection. The disk can
/// do what all members can. Its size is that of the smallest member at the start, and stays. Members must not be of the
/// model <see cref="ThreadModel.SerializeConnections"/>, since a mirror opens them several times.
/// </para>
/// <para>
/// The chains belong to the plugin: they start and end with it, or end when they are removed, unless somebody else uses
/// them too. A mirror has no memory: after a restart only the host knows whether a member missed something, and lists the
/// best one first and sets <see cref="ResyncAtStart"/>. nbdkit has no such plugin.
/// </para>
/// </remarks>
public sealed partial class MirrorPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _changing = new(1, 1);
    private readonly CancellationTokenSource _stopping = new();
    private readonly HashSet<MirrorDisk> _disks = [];
    private readonly List<NbdBackend> _started = [];
    private readonly NbdBackend[] _chains = [];
    private MirrorMember[] _members = [];
    private NbdBackend? _holder;
    private uint _turn;
    private long _size;
    private bool _running;

    /// <summary>
    /// The plugin in the catalogue: <c>mirror</c>, with the magic parameter <c>file</c>, which is repeatable.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "mirror",
        "one disk of which each member holds a copy (RAID 1)",
        [
            new NbdParameter("file", "a file or block device; once for each") { IsRequired = true, IsRepeatable = true },
            new NbdParameter("read", "which member reads go to: round-robin or first (default: round-robin)"),
            new NbdParameter("resync", "whether the first is copied to the others at the start (default: no, they are alike)"),
        ],
        parameters => new MirrorPlugin
        {
            Chains = FileMembers.Of(parameters),
            ReadPolicy = parameters.OneOf(
                "read", ("round-robin", MirrorReadPolicy.RoundRobin), ("first", MirrorReadPolicy.First)) ?? default,
            ResyncAtStart = parameters.Boolean("resync") ?? false,
        })
    {
        MagicParameter = "file",
    };

    /// <summary>The members at the start, at least one. Each is the outermost layer of its chain.</summary>
    /// <exception cref="ArgumentNullException">The list or a chain is null.</exception>
    /// <exception cref="ArgumentException">
    /// The list is empty, a chain is in it twice, or one takes only one connection at a time.
    /// </exception>
    public required IReadOnlyList<NbdBackend> Chains
    {
        get => _chains;
        init
        {
            _chains = ChainSet.Checked("mirror", value, nameof(Chains));
            foreach (NbdBackend chain in _chains)
            {
                RequireConnections(chain);
            }
        }
    }

    /// <summary>Which member a read goes to. <see cref="MirrorReadPolicy.RoundRobin"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public MirrorReadPolicy ReadPolicy
    {
        get;
        init => field = Enum.IsDefined(value)
            ? value
            : throw new ArgumentOutOfRangeException(nameof(ReadPolicy), value, "mirror: there is no such policy.");
    }

    /// <summary>
    /// Whether only the first member is good at the start, and the others are brought in sync with it. False by default:
    /// they are alike.
    /// </summary>
    public bool ResyncAtStart { get; init; }

    /// <summary>
    /// The most bytes that the resync of one member copies in a second, or 0 for as fast as it can, which is the default.
    /// May be set from any thread at any time.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long ResyncRate
    {
        get => Interlocked.Read(ref field);
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            Interlocked.Exchange(ref field, value);
        }
    }

    /// <summary>
    /// Called when the state of a member has changed: it failed, or is in sync. Possibly from within a request, which waits
    /// for it: it must be quick, and must not wait for anything of this plugin. Null by default; both are logged in any case.
    /// </summary>
    public Action<MirrorMember>? MemberChanged { get; init; }

    /// <summary>The clock of <see cref="ResyncRate"/>. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <summary>The members as they are now, in the order in which they came. Empty before the start.</summary>
    public IReadOnlyList<MirrorMember> Members => Volatile.Read(ref _members);

    /// <inheritdoc/>
    public string Name => "mirror";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => new ChainSet("mirror", _chains).ThreadModel;

    internal RangeLock Ranges { get; } = new();

    private NbdBackend Holder => _holder ?? throw new InvalidOperationException("mirror is not part of a chain.");

    void IChainHolder.Bind(NbdBackend backend) => _holder = backend;

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The members are of no common use.</exception>
    public async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        var infos = new List<NbdExportInfo>();
        foreach (NbdBackend chain in _chains)
        {
            await chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
            _started.Add(chain);
            InnerContext probe = await InnerContext.OpenAsync(chain, Holder, readOnly: true, "", null, cancellationToken)
                .ConfigureAwait(false);
            infos.Add(probe.Info);
            await probe.CloseAsync().ConfigureAwait(false);
        }
        _size = infos.Min(info => info.Size);
        if (infos.Any(info => info.Size > _size))
        {
            // The end of the mirror is in the middle of a larger member.
            _size -= _size % CombinedInfo.MinimumBlock(infos);
        }
        for (int i = 0; i < _chains.Length; i++)
        {
            bool isGood = i == 0 || !ResyncAtStart;
            var member = new MirrorMember(_chains[i], isGood ? MirrorMemberState.InSync : MirrorMemberState.Resyncing);
            _members = [.. _members, member];
        }
        _running = true;
        foreach (MirrorMember member in _members.Where(member => member.State == MirrorMemberState.Resyncing))
        {
            BeginResync(member);
        }
    }

    /// <inheritdoc/>
    public async ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        foreach (MirrorMember member in Members.Where(member => member.IsActive))
        {
            await InnerContext.PreconnectAsync(member.Chain, connection, readOnly, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(CancellationToken cancellationToken)
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        await _changing.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        _running = false;
        _changing.Release();
        foreach (MirrorMember member in Members)
        {
            await member.Resync.ConfigureAwait(false);
        }
        foreach (NbdBackend chain in _started)
        {
            await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
        }
        _started.Clear();
    }

    /// <summary>Disposes of the chains that were never started.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (NbdBackend chain in _chains)
        {
            await chain.DiscardAsync().ConfigureAwait(false);
        }
        _stopping.Dispose();
    }

    /// <summary>The member that the next read begins with.</summary>
    internal int NextTurn(int members)
        => ReadPolicy == MirrorReadPolicy.First || members == 0 ? 0 : (int)(Interlocked.Increment(ref _turn) % (uint)members);

    internal void Leave(MirrorDisk disk)
    {
        lock (_lock)
        {
            _disks.Remove(disk);
        }
    }

    private static void RequireConnections(NbdBackend chain)
    {
        if (chain.ThreadModel == ThreadModel.SerializeConnections)
        {
            throw new ArgumentException(
                $"mirror: the chain of {chain.Name} takes one connection at a time, and a mirror needs several.");
        }
    }
}
