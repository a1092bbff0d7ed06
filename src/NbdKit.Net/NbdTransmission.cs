using NbdKit.Protocol;

namespace NbdKit;

/// <summary>
/// What a handshake of another kind than NBD's settled, so that the transmission phase can begin: for
/// <see cref="NbdServer.ServeTransmissionAsync(Stream, NbdTransmission, CancellationToken)"/> and
/// <see cref="NbdClient.BeginTransmission(Stream, NbdTransmission, NbdClientOptions?)"/>.
/// </summary>
/// <remarks>
/// A peer with such a handshake is a kernel whose driver is told over netlink or ioctl what it is connected to, an orchestrator that
/// passes a connected socket on, or a protocol of the host's own. Both sides must be told the same. A value that makes no sense
/// throws where it is set. Source: "Transmission" and "Transmission flags" in the protocol text.
/// </remarks>
public sealed record NbdTransmission
{
    /// <summary>The export, for the server to open; "" for its default export, and by default.</summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string ExportName
    {
        get;
        init
        {
            WireString.Check(value, "export name");
            field = value;
        }
    }
    = "";

    /// <summary>
    /// Whether reads, block status and errors are answered with structured replies. False by default: simple replies for all, as
    /// kernels have them.
    /// </summary>
    public bool StructuredReplies { get; init; }

    /// <summary>
    /// Whether requests have extended headers, and all replies are extended chunks; it includes structured replies. False by
    /// default.
    /// </summary>
    public bool ExtendedHeaders { get; init; }

    /// <summary>
    /// The meta contexts that were selected: the first has the number 1 in requests and replies, the next 2, and so on. None by
    /// default; only with structured replies or extended headers.
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
                WireString.Check(name, "meta context");
            }
            if (value.Distinct().Count() != value.Count)
            {
                throw new ArgumentException("A meta context is there twice.", nameof(value));
            }
            field = value;
        }
    }
    = [];

    /// <summary>
    /// The size in bytes that the peer was told. Null, the default, for that of the export; a client must be given it.
    /// </summary>
    /// <remarks>
    /// A server takes a size up to that of the export, in whole blocks of its minimum block size, and refuses what goes beyond it.
    /// </remarks>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value.GetValueOrDefault(), nameof(value));
            field = value;
        }
    }

    /// <summary>
    /// The transmission flags that the peer was told; <see cref="TransmissionFlags.HasFlags"/> is understood. Null, the default, for
    /// what the export can do; a client must be given them.
    /// </summary>
    /// <remarks>A server takes flags that offer no more than the export can do, and refuses what they do not offer.</remarks>
    public TransmissionFlags? Flags { get; init; }

    /// <summary>
    /// The request sizes that the peer takes, for a client, and in <see cref="Opened"/>. What a server enforces are those of the export,
    /// whatever is said here. Nothing known by default.
    /// </summary>
    public BlockSize BlockSize { get; init; }

    /// <summary>
    /// For a server: called when the export is open, before a byte is exchanged, to tell the peer what it is. It gets this record
    /// with size, flags and block sizes filled in, and what the export says about itself; what it returns is what was settled in the
    /// end, with the same export name. Null by default.
    /// </summary>
    /// <remarks>
    /// The connection is the callback's until it completes: it may send and receive on the stream, socket or pipe. It is
    /// called on a thread of the thread pool, has <see cref="NbdServerOptions.HandshakeTimeout"/>, and its token fires
    /// when that is over or the connection is cut. What it throws is thrown to the caller of <c>ServeTransmissionAsync</c>.
    /// </remarks>
    public Func<NbdTransmission, NbdExportInfo, CancellationToken, ValueTask<NbdTransmission>>? Opened { get; init; }

    /// <summary>How requests are answered.</summary>
    internal ReplyForm Form => ExtendedHeaders ? ReplyForm.Extended : StructuredReplies ? ReplyForm.Structured : ReplyForm.Simple;

    /// <summary>Refuses contexts that replies have no room for.</summary>
    internal void CheckForm()
    {
        if (MetaContexts.Count > 0 && Form == ReplyForm.Simple)
        {
            throw new ArgumentException(
                $"The meta context '{MetaContexts[0]}' was selected without structured replies, which it takes.", "negotiated");
        }
    }
}
