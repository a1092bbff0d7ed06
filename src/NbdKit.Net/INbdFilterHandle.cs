namespace NbdKit;

/// <summary>
/// One opened context of a filter. Every method has a default that passes the call on, so a filter writes only what it
/// changes.
/// </summary>
/// <remarks>
/// <para>
/// <c>next</c> is the layer below. It is the context that was attached when the call began, and stays usable until the
/// returned task completes, even if another one is attached meanwhile (<see cref="NbdContext.SetNext"/>). If none is
/// attached, every call on it throws.
/// </para>
/// <para>
/// Calls come as the thread model allows, on any thread, with valid ranges and with flags that the filter's own info
/// supports. A layer that says <see cref="Support.Emulate"/> for FUA, zero or cache never sees the operation: the library
/// carries it out with the layer's other methods. Buffers belong to the caller until the returned task completes.
/// </para>
/// </remarks>
public interface INbdFilterHandle
{
    /// <summary>
    /// Whether the filter serves all its life with the context that is attached when it has been prepared. Then the library
    /// need not count the calls at this layer, which makes it cheaper, and <see cref="NbdContext.SetNext"/> throws while it
    /// serves. False by default. Read once, after prepare.
    /// </summary>
    bool KeepsNext => false;

    /// <summary>
    /// Called once after the context was opened and the layer below is prepared: the first place where data calls on
    /// <paramref name="next"/> are allowed. An exception fails the open.
    /// </summary>
    /// <param name="next">The layer below; its <see cref="NextContext.Info"/> is known.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken) => default;

    /// <summary>Says what this layer is and can do: usually <c>next.Info with { … }</c>. Called once, after prepare.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(next.Info);

    /// <summary>Fills the whole buffer.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="buffer">The memory to fill; it may hold anything before.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => next.ReadAsync(buffer, offset, cancellationToken);

    /// <summary>
    /// Fills the buffer but for its holes, and tells where these are; see <see cref="INbdPluginHandle.ReadSparseAsync"/>. By
    /// default the same as <see cref="ReadAsync"/>: a filter that changes what is read must not let holes pass unchanged.
    /// </summary>
    /// <param name="next">The layer below.</param>
    /// <param name="buffer">The memory to fill; it may hold anything before, and its holes may hold anything after.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="extents">Receives what was read, as far as it is known; what is zero in it is a hole.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => ReadAsync(next, buffer, offset, cancellationToken);

    /// <summary>Writes all the data.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="data">The bytes to write.</param>
    /// <param name="offset">First byte to write.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, only if this layer's FUA is native.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
        => next.WriteAsync(data, offset, flags, cancellationToken);

    /// <summary>Brings all completed changes to stable storage.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken) => next.FlushAsync(cancellationToken);

    /// <summary>Gives up the content of a range.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, only if this layer's FUA is native.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset, length, flags, cancellationToken);

    /// <summary>
    /// Makes a range read as zeroes. <see cref="NbdError.NotSupported"/> makes the library write zeroes through this layer
    /// instead, unless the request was a fast zero.
    /// </summary>
    /// <param name="next">The layer below.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.MayTrim"/>, <see cref="RequestFlags.FastZero"/>, and <see cref="RequestFlags.Fua"/> only if
    /// this layer's FUA is native.
    /// </param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.ZeroAsync(offset, length, flags, cancellationToken);

    /// <summary>A hint that a range will be read soon.</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => next.CacheAsync(offset, length, cancellationToken);

    /// <summary>Adds to the list what the range is made of, in the meta context that the list names.</summary>
    /// <param name="next">The layer below. A filter that moves offsets asks it with a list of its own.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags"><see cref="RequestFlags.RequestOne"/>: only the first extent will be used.</param>
    /// <param name="extents">Receives the extents; valid until the returned task completes.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => next.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    /// <summary>
    /// Called exactly once for each context whose <see cref="PrepareAsync"/> succeeded, after its last request: the last place
    /// where data calls on <paramref name="next"/> are allowed. The library finalizes <paramref name="next"/> afterwards; the
    /// filter must not. An exception is logged, and the layers below are finalized all the same.
    /// </summary>
    /// <param name="next">The layer below.</param>
    /// <param name="cancellationToken">Fires when the end has to be quick.</param>
    ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken) => default;

    /// <summary>Ends this context; called exactly once. The layer below must not be used any more and closes afterwards.</summary>
    ValueTask CloseAsync() => default;
}
