namespace NbdKit.Plugins;

/// <summary>
/// A disk made of delegates, for one that is needed once, as in a test (compare nbdkit-eval-plugin(1)).
/// </summary>
/// <remarks>
/// <para>Only <see cref="Read"/> and a size must be given:</para>
/// <code>
/// var ones = new DelegatePlugin(1 &lt;&lt; 20, (buffer, offset) =&gt; buffer.Fill(0xff));
///
/// var disk = new DelegatePlugin
/// {
///     Size = bytes.Length,
///     Read = (buffer, offset, cancellationToken) =&gt; source.ReadAtAsync(buffer, offset, cancellationToken),
/// };
/// </code>
/// <para>
/// What the disk can do follows from which delegates are given, unless <see cref="Info"/> or <see cref="AdjustInfo"/>
/// says otherwise. Their rules are those of the methods of <see cref="INbdPluginHandle"/>. A delegate that is missing
/// but called all the same, because the info claims so, behaves like a method there that is not implemented.
/// </para>
/// <para>
/// A plugin without <see cref="Read"/>, or without exactly one of <see cref="Size"/> and <see cref="Info"/>, fails the
/// start of its chain with <see cref="InvalidOperationException"/>, or the open if there is an <see cref="Open"/>.
/// </para>
/// </remarks>
public sealed partial class DelegatePlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>Creates a disk from its properties.</summary>
    public DelegatePlugin()
    {
    }

    /// <summary>Creates a disk from synchronous delegates.</summary>
    /// <param name="size">Size in bytes, from 0 to 2^63-1.</param>
    /// <param name="read">Fills the whole buffer with the bytes at an offset.</param>
    /// <param name="write">Stores all the bytes at an offset, or null for a read-only disk.</param>
    /// <exception cref="ArgumentOutOfRangeException">The size is negative.</exception>
    public DelegatePlugin(long size, Action<Span<byte>, long> read, Action<ReadOnlySpan<byte>, long>? write = null)
    {
        ArgumentNullException.ThrowIfNull(read);
        Size = size;
        Read = (buffer, offset, _) =>
        {
            read(buffer.Span, offset);
            return default;
        };
        if (write is not null)
        {
            Write = (data, offset, _, _) =>
            {
                write(data.Span, offset);
                return default;
            };
        }
    }

    /// <summary>A short name for logs and error texts.</summary>
    /// <value><c>delegate</c> by default.</value>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string Name
    {
        get;
        init
        {
            ArgumentException.ThrowIfNullOrEmpty(value);
            field = value;
        }
    } = "delegate";

    /// <summary>How many calls the delegates take at once, over all connections.</summary>
    /// <value>
    /// <see cref="ThreadModel.SerializeAllRequests"/> by default, as for nbdkit-eval-plugin(1): delegates usually share
    /// what they captured. Set <see cref="ThreadModel.Parallel"/> for delegates that are safe, or that wait for each
    /// other.
    /// </value>
    public ThreadModel ThreadModel { get; init; } = ThreadModel.SerializeAllRequests;

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1; either this or <see cref="Info"/> must be given.</summary>
    /// <value>Null by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(value));
            field = value;
        }
    }

    /// <summary>
    /// What the disk is and can do, word for word: a capability that is off here stays off, whatever delegates are
    /// given.
    /// </summary>
    /// <value>Null by default: it follows from <see cref="Size"/> and from which delegates are given.</value>
    public NbdExportInfo? Info { get; init; }

    /// <summary>
    /// Changes what would be said of the disk, each time it is opened, as in
    /// <c>info =&gt; info with { IsBlocking = true }</c>.
    /// </summary>
    /// <value>Null by default.</value>
    public Func<NbdExportInfo, NbdExportInfo>? AdjustInfo { get; init; }

    /// <summary>Fills the whole buffer with the bytes at an offset. Must be given.</summary>
    public Func<Memory<byte>, long, CancellationToken, ValueTask>? Read { get; init; }

    /// <summary>
    /// Fills the buffer but for its holes, and adds to the list what it finds out about them; see
    /// <see cref="INbdPluginHandle.ReadSparseAsync"/>. Without it reads tell of no holes.
    /// </summary>
    public Func<Memory<byte>, long, ExtentList, CancellationToken, ValueTask>? ReadSparse { get; init; }

    /// <summary>Stores all the bytes at an offset. The disk is read-only without it.</summary>
    public Func<ReadOnlyMemory<byte>, long, RequestFlags, CancellationToken, ValueTask>? Write { get; init; }

    /// <summary>Brings what was written to stable storage. With it, clients may also ask for FUA.</summary>
    public Func<CancellationToken, ValueTask>? Flush { get; init; }

    /// <summary>Gives up the content of a range: offset, length, flags. Without it there is no trim.</summary>
    public Func<long, long, RequestFlags, CancellationToken, ValueTask>? Trim { get; init; }

    /// <summary>Makes a range zero: offset, length, flags. Without it zeroes are written.</summary>
    public Func<long, long, RequestFlags, CancellationToken, ValueTask>? Zero { get; init; }

    /// <summary>Prepares for reads of a range: offset, length. Without it clients are not offered it.</summary>
    public Func<long, long, CancellationToken, ValueTask>? Cache { get; init; }

    /// <summary>
    /// Adds what a range is made of to the list: offset, length, flags, list. Without it clients are told that all is
    /// data.
    /// </summary>
    public Func<long, long, RequestFlags, ExtentList, CancellationToken, ValueTask>? Extents { get; init; }

    /// <summary>Called for each client before any byte is exchanged; an exception turns it away.</summary>
    public Func<NbdConnection, CancellationToken, ValueTask>? Preconnect { get; init; }

    /// <summary>Lists the exports. Without it there is only the default export.</summary>
    public Func<ExportList, CancellationToken, ValueTask>? ListExports { get; init; }

    /// <summary>The name of the export that "" stands for, or null if there is none. Without it, "" itself.</summary>
    public Func<CancellationToken, ValueTask<string?>>? DefaultExport { get; init; }

    /// <summary>
    /// Called when an export is opened; an exception fails the open. It may return what serves the context, such as
    /// another <see cref="DelegatePlugin"/> for each export; null (<c>default</c>) means this one.
    /// </summary>
    public Func<NbdOpenContext, CancellationToken, ValueTask<INbdPluginHandle?>>? Open { get; init; }

    /// <summary>Called when a context that this plugin serves itself is closed.</summary>
    public Func<ValueTask>? Close { get; init; }

    private NbdExportInfo DerivedInfo(long size)
    {
        var info = new NbdExportInfo
        {
            Size = size,
            CanWrite = Write is not null,
            CanFlush = Flush is not null,
            CanTrim = Trim is not null,
            CanCache = Cache is null ? Support.None : Support.Native,
            CanExtents = Extents is not null,
            CanReadSparse = ReadSparse is null ? Support.None : Support.Native,
        };
        return Zero is null ? info : info with { CanZero = Support.Native };
    }
}
