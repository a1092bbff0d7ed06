namespace NbdKit;

/// <summary>One opened export of a plugin. Only <see cref="GetInfoAsync"/> and <see cref="ReadAsync"/> must be written.</summary>
/// <remarks>
/// <para>
/// Calls come as the plugin's <see cref="ThreadModel"/> allows, on any thread. Ranges are valid, flags are ones that the
/// plugin said it supports, and no call follows <see cref="CloseAsync"/>. A method may complete synchronously, which is the
/// fastest way; one that may block a thread says so with <see cref="NbdExportInfo.IsBlocking"/>.
/// </para>
/// <para>
/// Buffers belong to the caller and are valid until the returned task completes: a plugin that needs the bytes longer copies
/// them.
/// </para>
/// <para>The token of a data call fires when the connection is gone or the server stops hard.</para>
/// </remarks>
public interface INbdPluginHandle
{
    /// <summary>Says what the export is and can do. Called once, right after it was opened.</summary>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken);

    /// <summary>Fills the whole buffer (nbdkit's <c>pread</c>).</summary>
    /// <param name="buffer">The memory to fill; it may hold anything before.</param>
    /// <param name="offset">First byte of the export to read.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken);

    /// <summary>
    /// Fills the buffer but for its holes, and tells where these are. Called in place of <see cref="ReadAsync"/> if
    /// <see cref="NbdExportInfo.CanReadSparse"/> is native and whoever reads can do something with holes. By default the same
    /// as <see cref="ReadAsync"/>: no holes.
    /// </summary>
    /// <param name="buffer">The memory to fill; it may hold anything before, and its holes may hold anything after.</param>
    /// <param name="offset">First byte of the export to read.</param>
    /// <param name="extents">
    /// Receives what was read, in order, as far as the plugin likes to tell; the window is the range. What is added as
    /// <see cref="ExtentStatus.Zero"/> is a hole. Valid until the returned task completes.
    /// </param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ReadSparseAsync(Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => ReadAsync(buffer, offset, cancellationToken);

    /// <summary>Writes all the data (nbdkit's <c>pwrite</c>). Fails with EPERM if not implemented.</summary>
    /// <param name="data">The bytes to write.</param>
    /// <param name="offset">First byte of the export to write.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, only if the plugin's FUA is native.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => throw new NbdException(NbdError.PermissionDenied, "this plugin cannot write");

    /// <summary>
    /// Brings every completed write, trim and zero of this context to stable storage; of all contexts if the plugin is
    /// multi-conn. Fails with EINVAL if not implemented.
    /// </summary>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask FlushAsync(CancellationToken cancellationToken)
        => throw new NbdException(NbdError.InvalidArgument, "this plugin cannot flush");

    /// <summary>Gives up the content of a range; what it reads afterwards is undefined. EINVAL if not implemented.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, up to the size of the export.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, only if the plugin's FUA is native.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw new NbdException(NbdError.InvalidArgument, "this plugin cannot trim");

    /// <summary>
    /// Makes a range read as zeroes. <see cref="NbdError.NotSupported"/> makes the library write zeroes instead, or tells
    /// the client so if the request was a fast zero. That is also what happens if it is not implemented.
    /// </summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, up to the size of the export.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.MayTrim"/>: the space may be given up, without it it must stay allocated.
    /// <see cref="RequestFlags.FastZero"/>: fail quickly if it would be slow. <see cref="RequestFlags.Fua"/>, only if the
    /// plugin's FUA is native.
    /// </param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw new NbdException(NbdError.NotSupported, "this plugin cannot zero");

    /// <summary>A hint that a range will be read soon. Does nothing if not implemented.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, up to the size of the export.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken) => default;

    /// <summary>
    /// Adds to the list what the range is made of, in the meta context that the list names. At least one extent must cover
    /// <paramref name="offset"/>; the answer may stop early, and may go beyond the range. EINVAL if not implemented.
    /// </summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, up to the size of the export.</param>
    /// <param name="flags"><see cref="RequestFlags.RequestOne"/>: only the first extent will be used.</param>
    /// <param name="extents">Receives the extents; valid until the returned task completes.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => throw new NbdException(NbdError.InvalidArgument, "this plugin does not know its extents");

    /// <summary>
    /// Ends this context. Called exactly once, after its last request has completed; nothing is called afterwards. A flush
    /// need not have come before. Exceptions are logged.
    /// </summary>
    ValueTask CloseAsync() => default;
}
