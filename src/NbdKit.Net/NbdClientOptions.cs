using System.Net.Security;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace NbdKit;

/// <summary>What a client asks a server for, and how long it waits.</summary>
/// <remarks>A value that makes no sense throws where it is set. What a URI says goes before what is said here.</remarks>
public sealed record NbdClientOptions
{
    /// <summary>The export to open; "" for the server's default export.</summary>
    public string ExportName { get; init; } = "";

    /// <summary>Whether to encrypt. <see cref="NbdTlsPolicy.Off"/> by default; an <c>nbds</c> URI requires it.</summary>
    public NbdTlsPolicy Tls { get; init; } = NbdTlsPolicy.Off;

    /// <summary>
    /// How to encrypt: the name that the server's certificate must carry (by default the host connected to), trusted authorities,
    /// and the client's own certificate. By default the server is verified against the system's authorities, with TLS 1.2 or
    /// 1.3. Not changed by the client.
    /// </summary>
    public SslClientAuthenticationOptions? TlsAuthentication { get; init; }

    /// <summary>
    /// Whether a URI may name local files: the directory of certificates in <see cref="NbdUri.TlsCertificates"/>. False by
    /// default; true only for URIs that come from whoever runs the program.
    /// </summary>
    public bool AllowLocalFilesInUris { get; init; }

    /// <summary>Whether to ask for structured replies. True by default.</summary>
    public bool RequestStructuredReplies { get; init; } = true;

    /// <summary>Whether to ask for extended headers, which allow requests of 2^32 bytes and more. True by default.</summary>
    public bool RequestExtendedHeaders { get; init; } = true;

    /// <summary>
    /// The meta contexts to ask for. <c>base:allocation</c> by default; empty for none. What the server does not know is left out.
    /// </summary>
    public IReadOnlyList<string> MetaContexts { get; init; } = [ExtentList.BaseAllocation];

    /// <summary>
    /// Whether to ask, beside <see cref="MetaContexts"/>, for every meta context that the server lists for the export. False by
    /// default.
    /// </summary>
    public bool RequestListedMetaContexts { get; init; }

    /// <summary>What is checked before a request is sent. Everything by default.</summary>
    public NbdStrictness Strictness { get; init; } = NbdStrictness.All;

    /// <summary>
    /// The largest read or write that is sent in one piece, in bytes; larger ones are split. 32 MiB by default. A smaller limit
    /// of the server goes before it.
    /// </summary>
    public int MaxPayload { get; init => field = AtLeast(value, 512); } = 32 << 20;

    /// <summary>The requests in flight at a time; more wait for their turn. 64 by default.</summary>
    public int MaxRequestsInFlight { get; init => field = AtLeast(value, 1); } = 64;

    /// <summary>The extents that one reply may hold. 2^20 by default, which is what the protocol allows.</summary>
    public int MaxExtents { get; init => field = AtLeast(value, 1); } = 1 << 20;

    /// <summary>Time to connect in. 30 seconds by default; <see cref="Timeout.InfiniteTimeSpan"/> for no limit.</summary>
    public TimeSpan ConnectTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(30);

    /// <summary>Time for the whole handshake, TLS included. 30 seconds by default.</summary>
    public TimeSpan HandshakeTimeout { get; init => field = Positive(value); } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Time for one request, from its call to its reply. None by default. When it is over the call fails, and whether the
    /// server carried it out is not known.
    /// </summary>
    public TimeSpan RequestTimeout { get; init => field = Positive(value); } = Timeout.InfiniteTimeSpan;

    /// <summary>Receives what happens; nothing is logged by default.</summary>
    public ILoggerFactory LoggerFactory { get; init; } = NullLoggerFactory.Instance;

    /// <summary>The clock of all timeouts. The system's by default.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    private static TimeSpan Positive(TimeSpan value)
    {
        if (value != Timeout.InfiniteTimeSpan)
        {
            ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero);
        }
        return value;
    }

    private static int AtLeast(int value, int minimum)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, minimum);
        return value;
    }
}
