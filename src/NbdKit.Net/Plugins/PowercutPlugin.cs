using NbdKit.Layers;
using NbdKit.Plugins.Powercut;

namespace NbdKit.Plugins;

/// <summary>
/// A disk for tests of whatever keeps data on disks, such as a file system or a storage engine: it holds back what is not
/// flushed, and hands out images of the disk as a power cut could have left it.
/// </summary>
/// <remarks>
/// <para>
/// The content of the chain is what is on stable storage. Writes, zeroes and trims go to a journal in memory; reads see
/// them. A flush brings to the chain what had completed when it began, of all contexts if <see cref="IsMultiConn"/> is set
/// and else of its own, and flushes the chain. A request with FUA brings its own range there and nothing else.
/// </para>
/// <para>
/// <see cref="CutAsync"/> draws an image. Each sector has what is on stable storage, or what any change left there that is
/// pending: changes are lost, come in another order than they were made in, and are torn at the borders of sectors, never
/// within one. A change of a part of a sector is applied to the sector as it is when its turn comes, so such a sector has
/// what any of them leave in any order. A pending trim left zeroes or nothing. A change that is in flight, or has failed on
/// its way to the chain, is pending as well. The same seed over the same history draws the same image. Where more than 4,096
/// sectors are zeroed or trimmed at once, they are torn into at most 4,096 pieces.
/// </para>
/// <para>
/// Nothing is ever flushed for lack of space, which would hide that somebody forgot to flush: <see cref="MaxPending"/>
/// refuses. An orderly stop is no power cut: it brings everything to the chain.
/// </para>
/// <para>
/// The chain belongs to the plugin: it starts and ends with it, unless somebody else uses it too. The plugin opens its
/// default export once, for all clients; nobody else should write to it. nbdkit has no such plugin.
/// </para>
/// </remarks>
public sealed partial class PowercutPlugin : INbdPlugin, IChainHolder, IAsyncDisposable
{
    private readonly ChainSet _chains = new("powercut", []);
    private readonly Lock _watch = new();
    private PowercutDisk? _disk;
    private Task? _cut;
    private bool _cutFileSeen;
    private int _cuts;

    /// <summary>The plugin in the catalogue: <c>powercut</c>, with the magic parameter <c>file</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "powercut",
        "a disk of which a power cut takes what was not flushed, for tests",
        [
            new NbdParameter("file", "a file or block device: what is on stable storage") { IsRequired = true },
            new NbdParameter("cutfile", "the path of a file: each time that it appears the power is cut (default: never)"),
            new NbdParameter("seed", "the seed of the first cut; the next has the next number (default: random, and logged)"),
            new NbdParameter("maxpending", "how much may be unflushed (default 1G); more is refused"),
            new NbdParameter("sector", "size of the sectors that are not torn, a power of 2 from 512 to 64K (default 512)"),
            new NbdParameter("multiconn", "whether a flush is for all connections (default yes)"),
        ],
        Create)
    {
        MagicParameter = "file",
    };

    /// <summary>What is on stable storage. The outermost layer of its chain.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public required NbdBackend Chain
    {
        get => _chains.Chains[0];
        init => _chains = new ChainSet("powercut", ChainSet.Checked("powercut", [value], nameof(Chain)));
    }

    /// <summary>The size in bytes of the sectors that a cut does not tear.</summary>
    /// <value>512 by default; a power of two from 512 to 64 KiB.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a number.</exception>
    public int SectorSize
    {
        get;
        init => field = value is >= 512 and <= 65_536 && int.IsPow2(value)
            ? value
            : throw new ArgumentOutOfRangeException(
                nameof(value), value, "powercut: a sector is a power of two from 512 bytes to 64 KiB.");
    } = 512;

    /// <summary>
    /// How many bytes may be pending; a write, zero or trim that would make it more fails with ENOSPC. One that is smaller
    /// than a sector, and each zero and trim, counts as a sector; one with FUA does not count.
    /// </summary>
    /// <value>1 GiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long MaxPending
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    } = 1 << 30;

    /// <summary>
    /// Whether a flush is for what all contexts wrote, and clients are told so (NBD_FLAG_CAN_MULTI_CONN). True by default.
    /// If not, what a context has not flushed when it ends stays pending.
    /// </summary>
    public bool IsMultiConn { get; init; } = true;

    /// <summary>
    /// The path of a file. Each time that a request or a client comes and finds that it has appeared, the power is cut and the
    /// disk goes on from what that left, as with <see cref="RebootAsync(int, CancellationToken)"/>. Null by default.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? CutFile
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value);
            }
            field = value is null ? null : Path.GetFullPath(value);
        }
    }

    /// <summary>
    /// The seed of the first cut by <see cref="CutFile"/>; each that follows has the next number. Null, the default, for
    /// random ones. They are logged.
    /// </summary>
    public int? Seed { get; init; }

    /// <summary>How many bytes are pending now, as <see cref="MaxPending"/> counts them.</summary>
    public long Pending => _disk?.Pending ?? 0;

    /// <summary>How often the disk went on from an image.</summary>
    public int Generation => _disk?.Generation ?? 0;

    /// <inheritdoc/>
    public string Name => "powercut";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => _chains.ThreadModel;

    void IChainHolder.Bind(NbdBackend backend) => _chains.Bind(backend);

    /// <inheritdoc/>
    /// <exception cref="NbdException">The chain does not open.</exception>
    public async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        await _chains.StartAsync(cancellationToken).ConfigureAwait(false);
        InnerContext inner = await InnerContext.OpenAsync(
            Chain, _chains.Holder, readOnly: false, "", connection: null, cancellationToken).ConfigureAwait(false);
        _disk = new PowercutDisk(this, inner);
    }

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => _chains.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        await WatchAsync().ConfigureAwait(false);
        return new PowercutHandle(this, Disk);
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(CancellationToken cancellationToken)
    {
        try
        {
            if (_disk is not null)
            {
                await WatchAsync().ConfigureAwait(false);
                await _disk.ShutDownAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            await (_disk?.CloseAsync() ?? default).ConfigureAwait(false);
            await _chains.EndAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Disposes of the chain if it was never started.</summary>
    public ValueTask DisposeAsync() => _chains.DiscardAsync();
}
