using System.Net;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using NbdKit.Layers;
using NbdKit.Server;

namespace NbdKit;

/// <summary>How a server listens, what it offers, and what it allows a client to use up.</summary>
/// <remarks>A value that makes no sense throws where it is set.</remarks>
public sealed record NbdServerOptions
{
    /// <summary>
    /// Where to listen: <see cref="IPEndPoint"/> (port 0 picks a free one),
    /// <see cref="System.Net.Sockets.UnixDomainSocketEndPoint"/> and <see cref="VsockEndPoint"/> (port 2^32-1 picks a free one).
    /// Empty for a server that is only given connections.
    /// </summary>
    public IReadOnlyList<EndPoint> EndPoints { get; init; } = [];

    /// <summary>Whether everything is served read-only. False by default.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>How connections are encrypted, or null for plain text only.</summary>
    /// <value>Null by default.</value>
    public NbdServerTls? Tls { get; init; }

    /// <summary>The export name that the server's URIs carry. It is not advertised otherwise. "" by default.</summary>
    public string ExportName { get; init; } = "";

    /// <summary>Whether fixed newstyle negotiation is offered; without it clients can only use NBD_OPT_EXPORT_NAME. True by default.</summary>
    public bool OfferFixedNewstyle { get; init; } = true;

    /// <summary>Whether to offer leaving out the 124 zero bytes after NBD_OPT_EXPORT_NAME. True by default.</summary>
    public bool OfferNoZeroes { get; init; } = true;

    /// <summary>Whether structured replies are offered. True by default; false imitates an old server.</summary>
    public bool OfferStructuredReplies { get; init; } = true;

    /// <summary>
    /// Whether extended headers are offered: requests of 2^32 bytes and more. True by default; false imitates an old server.
    /// </summary>
    public bool OfferExtendedHeaders { get; init; } = true;

    /// <summary>
    /// Whether a write with an extended header must have the flag NBD_CMD_FLAG_PAYLOAD_LEN, as the protocol demands; one without it
    /// is refused as a request that has no payload. False by default: QEMU's client (8.2 to 10 at least) sends its writes without
    /// the flag, and the payload behind them.
    /// </summary>
    public bool RequirePayloadFlag { get; init; }

    /// <summary>Whether meta contexts are offered. True by default; false imitates an old server.</summary>
    public bool OfferMetaContexts { get; init; } = true;

    /// <summary>Whether clients may list the exports. True by default; false answers NBD_REP_ERR_POLICY.</summary>
    public bool OfferList { get; init; } = true;

    /// <summary>
    /// Time from the connection to the end of the handshake, TLS included, without what opening exports takes; then the client is cut off.
    /// 10 seconds by default, as in QEMU; <see cref="Timeout.InfiniteTimeSpan"/> for no limit, as for <see cref="OpenTimeout"/>,
    /// <see cref="StallTimeout"/> and <see cref="StopTimeout"/>.
    /// </summary>
    public TimeSpan HandshakeTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(10);

    /// <summary>Time that opening an export may take. 30 seconds by default.</summary>
    public TimeSpan OpenTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Time without progress inside a message, or while the client takes no replies, after which it is cut off. 60 seconds
    /// by default. A client that is idle between requests is never cut off.
    /// </summary>
    public TimeSpan StallTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(60);

    /// <summary>
    /// Time that requests in flight get to finish when the server stops, and after them the layers to clean up; also what they
    /// get when their client vanished. 5 seconds by default.
    /// </summary>
    public TimeSpan StopTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(5);

    /// <summary>The number of clients at a time; more are closed at once. 100 by default, as in QEMU.</summary>
    public int MaxConnections { get; init => field = AtLeast(value, 1); } = 100;

    /// <summary>The number of requests of one connection that run at a time; the next are not read before. 64 by default.</summary>
    public int MaxRequestsInFlight { get; init => field = AtLeast(value, 1); } = 64;

    /// <summary>
    /// The bytes of payload that one connection may hold, received or waiting to be sent. 64 MiB by default; a single
    /// request is always let through.
    /// </summary>
    public long MaxBytesInFlight { get; init => field = AtLeast(value, 1); } = 64 << 20;

    /// <summary>
    /// The bytes of payload that all connections together may hold. 512 MiB by default, or half of the memory that the garbage
    /// collector may use (<see cref="GCMemoryInfo.TotalAvailableMemoryBytes"/>: of the machine, of the container, or its hard limit) if
    /// that is less. One connection gets at most as much as is left, so clients that do not take their replies cannot starve the others.
    /// </summary>
    public long MaxServerBytesInFlight { get; init => field = AtLeast(value, 1); }
        = ServerBudget.DefaultLimit(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes);

    /// <summary>
    /// The largest payload of one read or write, in bytes: 32 MiB by default, which the protocol expects of every server.
    /// A larger read is refused; a larger write ends the connection. From 1 MiB to 2^31 - 48: with its header
    /// it must have a length.
    /// </summary>
    public int MaxPayload { get; init => field = AtMost(AtLeast(value, 1 << 20), int.MaxValue - 47); } = 32 << 20;

    /// <summary>The payload of an option that is parsed, in bytes. 128 KiB by default; eight times as much is skipped over.</summary>
    public int MaxOptionPayload { get; init => field = AtLeast(value, 8 << 10); } = 128 << 10;

    /// <summary>
    /// The options that a handshake may have, apart from two for each export listed. 64 by default; each 32 KiB of its payload count
    /// as one more. Pipelined, an option costs a few microseconds of a processor, and nobody knows yet who asks.
    /// </summary>
    public int MaxOptions { get; init => field = AtLeast(value, 1); } = 64;

    /// <summary>
    /// The bytes of option replies that one handshake may cause; a list that would be longer ends in NBD_REP_ERR_TOO_BIG, and whoever
    /// asks on after that is cut off. 16 MiB by default, at least 128 KiB: a list is an amplifier, of which a few bytes make megabytes,
    /// and every listed export adds to the options that a client may send.
    /// </summary>
    public long MaxHandshakeReplyBytes { get; init => field = AtLeast(value, 128 << 10); } = 16 << 20;

    /// <summary>
    /// How often a handshake may open an export for NBD_OPT_INFO, and how often to ask about its meta contexts, apart from once for
    /// each export listed. 4 by default.
    /// </summary>
    public int MaxOpensInHandshake { get; init => field = AtLeast(value, 1); } = 4;

    /// <summary>
    /// The meta context queries in one option. 1,024 by default; all options of a handshake may have four times as many, apart from two
    /// for each export listed.
    /// </summary>
    public int MaxMetaQueries { get; init => field = AtLeast(value, 1); } = 1024;

    /// <summary>The extents in one block status reply. 131,072 by default, at most 2^20.</summary>
    public int MaxExtents { get; init => field = Math.Min(AtLeast(value, 1), 1 << 20); } = ExtentList.DefaultMaximumCount;

    /// <summary>
    /// Whether to speak the oldstyle handshake, which very old clients need, and nothing else: without options, export names,
    /// structured replies or TLS. The default export is opened as soon as a client connects. False by default; only with
    /// <see cref="Tls"/> null.
    /// </summary>
    public bool Oldstyle { get; init; }

    /// <summary>How idle TCP connections that are accepted on <see cref="EndPoints"/> are probed, or null for not at all.</summary>
    /// <value>Null by default.</value>
    public NbdKeepAlive? KeepAlive { get; init; }

    /// <summary>The clients that may wait to be accepted on each endpoint. 512 by default.</summary>
    public int Backlog { get; init => field = AtLeast(value, 1); } = 512;

    /// <summary>
    /// How long after its last client has left the server stops by itself, if none has come meanwhile: zero for at once, up to 49
    /// days. A client is one that got as far as transmission. Null, the default, for never.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan? StopAfterLast { get; init => field = value is { } grace ? TimerRange.Checked(grace) : null; }

    /// <summary>
    /// Events after any of which the server lets no more clients in, and stops by itself when the last one has left; at once if one
    /// has happened before the start. None by default.
    /// </summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public IReadOnlyList<NbdExitEvent> StopWhen
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = [];

    /// <summary>
    /// How often it is looked for <see cref="StopWhen"/> while nobody comes or leaves, more than nothing and up to 49 days. 60 seconds
    /// by default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is zero, negative or too long.</exception>
    public TimeSpan StopWhenPoll { get; init => field = TimerRange.Checked(Positive(value)); } = TimeSpan.FromSeconds(60);

    /// <summary>Receives what happens; nothing is logged by default.</summary>
    public ILoggerFactory LoggerFactory { get; init; } = NullLoggerFactory.Instance;

    /// <summary>The clock of all timeouts. The system's by default.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <summary>Called when a client was let in, before the first byte is exchanged. Must return soon.</summary>
    public Action<NbdConnection>? Connected { get; init; }

    /// <summary>Called when a client has opened an export and enters transmission. Must return soon.</summary>
    public Action<NbdConnection, NbdExportInfo>? ExportOpened { get; init; }

    /// <summary>
    /// Called when a connection has ended and its contexts are closed, with the reason. Must return soon.
    /// </summary>
    public Action<NbdConnection, NbdDisconnect>? Disconnected { get; init; }

    private static TimeSpan Positive(TimeSpan value)
    {
        if (value != Timeout.InfiniteTimeSpan)
        {
            ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero);
        }
        return value;
    }

    private static int AtMost(int value, int maximum)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, maximum);
        return value;
    }

    private static T AtLeast<T>(T value, T minimum)
        where T : IComparable<T>
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, minimum);
        return value;
    }
}
