namespace NbdKit;

/// <summary>
/// A layer between the client and a plugin that changes what passes. Everything but <see cref="Name"/> and
/// <see cref="OpenAsync"/> has a default that changes nothing.
/// </summary>
/// <remarks>
/// The order of calls is described at <see cref="INbdPlugin"/>. The same type of filter may stand twice in a chain, and one
/// instance belongs to one place in one chain: all state is the instance's or the handle's, nothing is static.
/// Source: nbdkit-filter(3).
/// </remarks>
public interface INbdFilter
{
    /// <summary>A short name for logs and error texts, such as <c>offset</c>.</summary>
    string Name { get; }

    /// <summary>
    /// The thread model of this layer. By default that of the next layer: the filter itself is safe under parallel calls. A
    /// filter that is not returns the tighter of its own and the next model; a filter that shields the layers below (by
    /// sharing one context) may return a more parallel one. The library guards each layer's own model at its door.
    /// </summary>
    /// <param name="next">The model of the layer below.</param>
    ThreadModel GetThreadModel(ThreadModel next) => next;

    /// <summary>Called once before any endpoint listens, after the layers below. An exception ends the start.</summary>
    /// <param name="model">The final thread model of the whole chain.</param>
    /// <param name="cancellationToken">Fires when the start is given up.</param>
    ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken) => default;

    /// <summary>
    /// Called once, after the layers below have started: background work may begin, and shared contexts may be opened, here.
    /// </summary>
    /// <param name="backend">This filter's place in the chain; may be kept until <see cref="CleanupAsync"/> returns.</param>
    /// <param name="cancellationToken">Fires when the start is given up.</param>
    ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken) => default;

    /// <summary>Called for each client before any byte is exchanged. An exception turns it away.</summary>
    /// <param name="next">The layer below, to be asked unless the filter decides alone.</param>
    /// <param name="connection">The client: its address and process are known, its export name and TLS identity not yet.</param>
    /// <param name="readOnly">Whether the server serves everything read-only.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => next.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <summary>Lists the exports for a client (NBD_OPT_LIST).</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="exports">Receives the exports. To change the list below, pass a new one to it.</param>
    /// <param name="readOnly">Whether the server serves everything read-only.</param>
    /// <param name="connection">The client, or null when the host asks.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
        => next.ListExportsAsync(exports, readOnly, connection, cancellationToken);

    /// <summary>The name of the export that a client gets when it asks for "".</summary>
    /// <param name="next">The layer below.</param>
    /// <param name="readOnly">Whether the export is to be opened read-only.</param>
    /// <param name="connection">The client, or null when the host asks.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    /// <returns>The name, or null if there is no default export.</returns>
    ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => next.DefaultExportAsync(readOnly, connection, cancellationToken);

    /// <summary>
    /// Opens this layer. Normally <c>await context.OpenNextAsync(cancellationToken)</c>, then returns a handle. A filter that
    /// opens nothing below must not touch <c>next</c> in any later call. If it throws, what was attached is closed.
    /// </summary>
    /// <param name="context">This filter's own context; may be kept until the handle was closed.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    /// <returns>The object that serves this context; a filter without state for each context returns itself.</returns>
    ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken);

    /// <summary>
    /// Called once when the chain stops, before the layers below: stop background work and close shared contexts here; those
    /// that are left are closed when it returns. Also called if <see cref="StartAsync"/> failed, of this layer or of one above.
    /// Exceptions are logged.
    /// </summary>
    /// <param name="backend">This filter's place in the chain.</param>
    /// <param name="cancellationToken">Fires when the stop has to be quick.</param>
    ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken) => default;
}
