using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Client;

namespace NbdKit;

/// <summary>
/// A connection to an export of an NBD server, for any number of requests at a time from any threads.
/// </summary>
/// <remarks>
/// <para>
/// A request that the server refuses fails with an <see cref="NbdException"/>, and so does one that the server did not offer,
/// before anything is sent (see <see cref="NbdClientOptions.Strictness"/>). When the connection ends, for whatever reason, every
/// request in flight and every later one fails with an <see cref="NbdClientException"/>; the client is of no use then but to be
/// disposed of. Of a write that fails so, <see cref="NbdClientException.IsOutcomeUnknown"/> tells whether it may have been carried
/// out.
/// </para>
/// <para>
/// Requests are carried out in any order: who needs one to follow another awaits the first. Up to
/// <see cref="NbdClientOptions.MaxRequestsInFlight"/> are sent at a time, later ones wait for their turn in the order of their
/// calls. Buffers are the client's until the task of their request has completed, and not touched afterwards.
/// </para>
/// <para>
/// A cancelled request ends for its caller, while the server may carry it out all the same; the connection stays usable. It
/// counts as in flight until its reply has come. Only a write whose payload is being sent from the caller's memory (one of more
/// than 16 KiB) ends after that.
/// </para>
/// <para>
/// What follows an awaited request runs on a thread of the thread pool, or in the caller's synchronization context if it has one.
/// It may block; that slows nobody but itself. What completes together often continues on one thread, one after the other.
/// </para>
/// <para>Source: the transmission phase of the NBD protocol.</para>
/// </remarks>
public sealed partial class NbdClient : IAsyncDisposable
{
    private readonly ClientTransmission _transmission;
    private readonly NbdClientOptions _options;
    private readonly ObjectPool<BlockStatusReply> _replies = ObjectPool.Create<BlockStatusReply>();
    private readonly TransmissionFlags _flags;
    private readonly long _size;
    private readonly long _minimum;
    private readonly int _largest;

    internal NbdClient(ClientSession session, NbdClientOptions options)
    {
        _options = options;
        // A server that forgets this bit has none of the others either.
        _flags = (session.Flags & TransmissionFlags.HasFlags) != 0 ? session.Flags : TransmissionFlags.None;
        _size = session.Size;
        BlockSize blocks = session.BlockSize;
        _minimum = blocks.IsKnown ? blocks.Minimum : 1;
        // Where a server says nothing it has to take 32 MiB, and more only if it likes.
        long largest = Math.Min(options.MaxPayload, blocks.IsKnown ? blocks.Maximum : DefaultLargest);
        _largest = (int)Math.Max(_minimum, largest / _minimum * _minimum);
        MetaContexts = [.. session.MetaContexts.Values];
        Info = ClientExportInfo.From(session);
        _transmission = new ClientTransmission(session, options);
    }

    private const int DefaultLargest = 32 << 20;

    /// <summary>
    /// What the export is and can do, as the server said: whatever it did not offer is <see cref="Support.None"/>, all else
    /// <see cref="Support.Native"/>.
    /// </summary>
    public NbdExportInfo Info { get; }

    /// <summary>The name of the export, as it was asked for.</summary>
    public string ExportName => _transmission.Session.ExportName;

    /// <summary>What it receives into and sends from.</summary>
    internal SlabPool Slabs => _transmission.Slabs;

    /// <summary>Whether the connection is encrypted.</summary>
    public bool IsTls => _transmission.Session.IsTls;

    /// <summary>Whether structured replies were negotiated; extended headers include them.</summary>
    public bool HasStructuredReplies => _transmission.Session.StructuredReplies || HasExtendedHeaders;

    /// <summary>Whether extended headers were negotiated.</summary>
    public bool HasExtendedHeaders => _transmission.Session.ExtendedHeaders;

    /// <summary>The meta contexts that the server granted.</summary>
    public IReadOnlyList<string> MetaContexts { get; }

    /// <summary>Whether requests can be made: false from the moment when the connection has ended, or is about to.</summary>
    public bool IsConnected => _transmission.IsOpen;

    /// <summary>The requests whose replies have not come yet, also those that were cancelled.</summary>
    public int RequestsInFlight => _transmission.InFlight;

    /// <summary>Leaves in order: waits for the requests in flight, then says goodbye (NBD_CMD_DISC) and closes.</summary>
    /// <param name="cancellationToken">
    /// Stops waiting: what is in flight then fails with an <see cref="NbdClientException"/>, and the connection is closed at once.
    /// </param>
    /// <exception cref="OperationCanceledException">The token fired; the connection is closed all the same.</exception>
    public Task DisconnectAsync(CancellationToken cancellationToken = default)
        => _transmission.DisconnectAsync(cancellationToken);

    /// <summary>
    /// As <see cref="DisconnectAsync"/>, but requests that are not answered within 5 seconds are given up. Does not flush: that is
    /// <see cref="FlushAsync"/>.
    /// </summary>
    public ValueTask DisposeAsync() => _transmission.DisposeAsync();
}
