namespace NbdKit;

/// <summary>
/// Where the bytes of a disk come from: the innermost layer of a chain. Everything but <see cref="Name"/>,
/// <see cref="ThreadModel"/> and <see cref="OpenAsync"/> has a default.
/// </summary>
/// <remarks>
/// <para>The order of calls, F a filter outside plugin P (nbdkit-plugin(3), "Callback lifecycle"):</para>
/// <code>
/// NbdBackend.Compose         P.ThreadModel, F.GetThreadModel
/// chain starts               P.GetReadyAsync, F.GetReadyAsync, then P.StartAsync, F.StartAsync
///   client connects          F.PreconnectAsync → P.PreconnectAsync
///   client lists             F.ListExportsAsync → P.ListExportsAsync, F.DefaultExportAsync → P.DefaultExportAsync
///   client opens an export   F.OpenAsync → P.OpenAsync
///                            P handle: GetInfoAsync; F handle: PrepareAsync, GetInfoAsync
///     requests               F handle → P handle
///   client leaves            F handle FinalizeAsync; then F handle CloseAsync, P handle CloseAsync
/// chain stops                F.CleanupAsync, P.CleanupAsync
/// end                        Dispose of P, then of F, where they implement it
/// </code>
/// <para>
/// An export is often opened twice for one client: for NBD_OPT_INFO, and again for NBD_OPT_GO. Settings are the
/// implementation's own <c>init</c> properties, checked where they are set. One instance serves one chain; all its
/// state is its own, nothing is static.
/// </para>
/// </remarks>
public interface INbdPlugin
{
    /// <summary>A short name for logs and error texts, such as <c>memory</c>.</summary>
    string Name { get; }

    /// <summary>How many calls the plugin takes at once. Read when the chain is composed.</summary>
    ThreadModel ThreadModel { get; }

    /// <summary>
    /// Called once before any endpoint listens: the last moment to fail visibly. An exception ends the start of the chain.
    /// </summary>
    /// <param name="model">The final thread model of the whole chain.</param>
    /// <param name="cancellationToken">Fires when the start is given up.</param>
    ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken) => default;

    /// <summary>
    /// Called once after every layer is ready: background work may begin here (nbdkit's <c>after_fork</c>).
    /// </summary>
    /// <param name="cancellationToken">Fires when the start is given up.</param>
    ValueTask StartAsync(CancellationToken cancellationToken) => default;

    /// <summary>
    /// Called for each client before any byte is exchanged. An exception turns the client away without a word.
    /// </summary>
    /// <param name="connection">The client: its address and process are known, its export name and TLS identity not yet.</param>
    /// <param name="readOnly">Whether the server serves everything read-only.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken) => default;

    /// <summary>Lists the exports for a client (NBD_OPT_LIST). By default only the default export.</summary>
    /// <param name="exports">Receives the exports.</param>
    /// <param name="readOnly">Whether the server serves everything read-only.</param>
    /// <param name="connection">The client, or null when the host asks. Do not list what it may not see.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        exports.AddDefault();
        return default;
    }

    /// <summary>
    /// The name of the export that a client gets when it asks for "". By default "" itself. Asked at most once for each
    /// connection.
    /// </summary>
    /// <param name="readOnly">Whether the export is to be opened read-only.</param>
    /// <param name="connection">The client, or null when the host asks.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    /// <returns>The name, or null if there is no default export.</returns>
    ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken) => new("");

    /// <summary>Opens an export. An exception fails this open; an <see cref="NbdException"/> tells the client why.</summary>
    /// <param name="context">The export name, whether it is opened read-only, and for whom.</param>
    /// <param name="cancellationToken">Fires when the client is gone or the server stops hard.</param>
    /// <returns>The object that serves this context; a plugin without state for each context returns itself.</returns>
    ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken);

    /// <summary>
    /// Called once after the last context was closed: stop background work here. Also called if <see cref="StartAsync"/> failed,
    /// of this layer or of one above. Exceptions are logged.
    /// </summary>
    /// <param name="cancellationToken">Fires when the stop has to be quick.</param>
    ValueTask CleanupAsync(CancellationToken cancellationToken) => default;
}
