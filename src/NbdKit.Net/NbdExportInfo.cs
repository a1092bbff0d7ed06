using NbdKit.Protocol;

namespace NbdKit;

/// <summary>
/// What an opened layer is and can do: the one answer that replaces nbdkit's <c>get_size</c>, <c>block_size</c>,
/// <c>export_description</c> and <c>can_*</c> callbacks. A filter changes what it must with <c>with</c>.
/// </summary>
/// <remarks>
/// Asked once for each context, after it was prepared; the answer holds until the context is closed. What a filter reads
/// from <see cref="NextContext.Info"/> has gone through the gates: a context opened read-only cannot write, and one that
/// cannot write cannot trim, zero or promise FUA.
/// </remarks>
public sealed record NbdExportInfo
{
    private readonly Support? _canZero;
    private readonly Support? _canFua;
    private readonly bool? _canFastZero;

    /// <summary>Size of the export in bytes, from 0 to 2^63-1. Constant while the context is open.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public required long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <summary>The request sizes that the layer takes. Requests that break them are refused with EINVAL.</summary>
    /// <value>Nothing known by default: any alignment and size.</value>
    public BlockSize BlockSize { get; init; }

    /// <summary>
    /// Whether <see cref="BlockSize"/> is told to clients and not enforced: requests that break it, except by a payload that the
    /// server does not take, are passed to the layer. False by default.
    /// </summary>
    public bool BlockSizeIsAdvice { get; init; }

    /// <summary>What the export is, for people (NBD_INFO_DESCRIPTION): at most 4,096 bytes of UTF-8, or null.</summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string? Description
    {
        get;
        init
        {
            if (value is not null)
            {
                WireString.Check(value, "export description");
            }
            field = value;
        }
    }

    /// <summary>
    /// The name that the export goes by if it differs from the one it was opened with (NBD_INFO_NAME), or null.
    /// </summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string? CanonicalName
    {
        get;
        init
        {
            if (value is not null)
            {
                WireString.Check(value, "canonical export name");
            }
            field = value;
        }
    }

    /// <summary>Whether the layer takes writes. False by default.</summary>
    public bool CanWrite { get; init; }

    /// <summary>Whether the layer takes flushes. False by default.</summary>
    public bool CanFlush { get; init; }

    /// <summary>Whether the layer takes trims. False by default.</summary>
    public bool CanTrim { get; init; }

    /// <summary>Whether seeking is slow, as on a spinning disk. False by default.</summary>
    public bool IsRotational { get; init; }

    /// <summary>
    /// Whether zeroing is offered, and who does it. By default <see cref="Support.Emulate"/>: <see cref="NextContext"/>
    /// writes zeroes.
    /// </summary>
    public Support CanZero { get => _canZero ?? Support.Emulate; init => _canZero = value; }

    /// <summary>
    /// Whether a zero that would not be fast fails quickly. By default true if zeroes are emulated, which are never fast.
    /// </summary>
    public bool CanFastZero { get => _canFastZero ?? (CanZero == Support.Emulate); init => _canFastZero = value; }

    /// <summary>
    /// Whether <see cref="RequestFlags.Fua"/> is offered, and who does it. By default <see cref="Support.Emulate"/> (a flush
    /// after the request) if the layer takes flushes, else <see cref="Support.None"/>.
    /// </summary>
    public Support CanFua
    {
        get => _canFua ?? (CanFlush ? Support.Emulate : Support.None);
        init => _canFua = value;
    }

    /// <summary>
    /// Whether prefetching is offered. <see cref="Support.Emulate"/> reads and throws the data away.
    /// <see cref="Support.None"/> by default.
    /// </summary>
    public Support CanCache { get; init; }

    /// <summary>
    /// Whether several connections may be used as one: a flush on any of them covers completed writes on all, and they see
    /// each other's data. False by default.
    /// </summary>
    public bool CanMultiConn { get; init; }

    /// <summary>
    /// Whether a read may ask not to be answered in fragments (NBD_CMD_FLAG_DF). What a client learned of its server; a layer
    /// need not say it, because the server offers it by itself. False by default.
    /// </summary>
    public bool CanDf { get; init; }

    /// <summary>
    /// Whether the layer knows its extents. False by default: clients are told that all is data.
    /// </summary>
    public bool CanExtents { get; init; }

    /// <summary>
    /// Whether a read tells which parts of it are holes, so that they travel as such and are not sent as zeroes ("Structured reply
    /// types": NBD_REPLY_TYPE_OFFSET_HOLE). <see cref="Support.Native"/>: the layer says so in
    /// <see cref="INbdPluginHandle.ReadSparseAsync"/>. <see cref="Support.Emulate"/>: the library asks for the extents first, and
    /// reads only what is data; right for a layer whose extents are known as soon as they are asked for.
    /// <see cref="Support.None"/> by default.
    /// </summary>
    public Support CanReadSparse { get; init; }

    /// <summary>
    /// The meta contexts that the extents of this layer can be asked for, in the order in which they are listed. By default
    /// <c>base:allocation</c> alone. A layer that has others gets their names with <see cref="ExtentList.MetaContext"/>; a filter
    /// adds, hides or changes them ("Metadata querying" in the protocol text).
    /// </summary>
    /// <exception cref="ArgumentException">A name breaks the protocol's rules, or is there twice.</exception>
    public IReadOnlyList<string> MetaContexts
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            foreach (string name in value)
            {
                MetaContextName.Check(name);
            }
            if (value.Distinct().Count() != value.Count)
            {
                throw new ArgumentException("A meta context is there twice.", nameof(value));
            }
            field = value;
        }
    }
    = [ExtentList.BaseAllocation];

    /// <summary>
    /// Which of <see cref="MetaContexts"/> have a status of more than 32 bits: clients without extended headers do not see
    /// them. None by default.
    /// </summary>
    public IReadOnlyList<string> WideMetaContexts { get; init; } = [];

    /// <summary>
    /// Whether calls of this layer may block a thread or burn CPU for long before they return. The server then runs each
    /// request on the thread pool instead of in the loop that receives. False by default.
    /// </summary>
    public bool IsBlocking { get; init; }

    /// <summary>The answer with the gates of nbdkit applied, and every derived default made definite.</summary>
    internal NbdExportInfo Gated(bool readOnly)
    {
        bool canWrite = CanWrite && !readOnly;
        if (canWrite && _canZero is not (null or Support.None) && _canFua is not null && _canFastZero is not null)
        {
            // Definite already: thousands of contexts can share one answer.
            return this;
        }
        Support canZero = canWrite ? CanZero : Support.None;
        return this with
        {
            CanWrite = canWrite,
            CanTrim = canWrite && CanTrim,
            CanZero = canZero,
            CanFastZero = canZero != Support.None && CanFastZero,
            CanFua = canWrite ? CanFua : Support.None,
        };
    }
}
