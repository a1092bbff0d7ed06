using NbdKit.Layers;

namespace NbdKit;

// Opening contexts: by the host, by the server, and by the filter above.
public sealed partial class NbdBackend
{
    // What nobody closes if its opener forgets it: shared contexts of this layer, and those of the host.
    private readonly HashSet<NextContext> _unowned = [];
    private readonly RequestGate _oneConnection = new();

    /// <summary>
    /// Opens this chain directly, without NBD: the context is prepared and takes data calls. Dispose of it to finalize and
    /// close it. Starts the chain if it was not started; end that with <see cref="DisposeAsync"/>.
    /// </summary>
    /// <param name="exportName">The export to open; "" for the default export.</param>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The opened chain.</returns>
    /// <exception cref="NbdException">A layer refused.</exception>
    /// <exception cref="ObjectDisposedException">The chain has ended.</exception>
    public async ValueTask<NextContext> OpenAsync(
        string exportName = "", bool readOnly = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(exportName);
        await StartAsync(null, cancellationToken).ConfigureAwait(false);
        NextContext context = await OpenEntryAsync(readOnly, exportName, null, cancellationToken).ConfigureAwait(false);
        try
        {
            await context.PrepareAsync(cancellationToken).ConfigureAwait(false);
            return context;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>
    /// Opens the layer below this one, without attaching it (nbdkit's <c>nbdkit_next_context_open</c>). What comes back is the
    /// caller's to prepare, finalize and close, or to attach with <see cref="NbdContext.SetNext"/>.
    /// </summary>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="exportName">The export to open; "" for the default export of the layer below, unless shared.</param>
    /// <param name="owner">
    /// The context of this layer on whose behalf it is opened, which closes it at its own end if nobody did before, with a
    /// warning; or null for a shared context: one that is tied to no connection and may be used from any of them and from
    /// background work.
    /// </param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="InvalidOperationException">
    /// This is a plugin, <paramref name="owner"/> belongs to another layer, or the chain is not running.
    /// </exception>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public ValueTask<NextContext> OpenNextAsync(
        bool readOnly, string exportName, NbdContext? owner, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(exportName);
        if (Next is null)
        {
            throw new InvalidOperationException($"{Name} is a plugin: there is no layer below to open.");
        }
        if (owner is not null && owner.Backend != this)
        {
            throw new InvalidOperationException(
                $"{Name} was asked to open its next layer for a context of {owner.Backend.Name}; it opens only for its own.");
        }
        return owner is null
            ? Next.OpenContextAsync(readOnly, exportName, null, shared: true, unowned: true, isTls: false, cancellationToken)
            : OpenOwnedAsync(Next, readOnly, exportName, owner, cancellationToken);
    }

    private static async ValueTask<NextContext> OpenOwnedAsync(
        NbdBackend next, bool readOnly, string exportName, NbdContext owner, CancellationToken cancellationToken)
    {
        NextContext context = await next.OpenContextAsync(
            readOnly, exportName, owner.Connection, owner.IsShared, unowned: false, owner.IsTls, cancellationToken)
            .ConfigureAwait(false);
        context.Owner = owner;
        if (!owner.Remember(context))
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw new InvalidOperationException(
                $"The context of {owner.Backend.Name} is closed: nothing can be opened for it any more.");
        }
        return context;
    }

    /// <summary>
    /// Opens a shared context of the layer below on behalf of clients that are all encrypted, or of clients that are not, and
    /// tells the layers below which: what they show to encrypted clients alone must not be shared with others.
    /// </summary>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="exportName">The export to open, already resolved: "" is not replaced by a default export.</param>
    /// <param name="isTls">Whether every client that will be served by it is encrypted.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="InvalidOperationException">This is a plugin, or the chain is not running.</exception>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public ValueTask<NextContext> OpenSharedNextAsync(
        bool readOnly, string exportName, bool isTls, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(exportName);
        return Next is null
            ? throw new InvalidOperationException($"{Name} is a plugin: there is no layer below to open.")
            : Next.OpenContextAsync(readOnly, exportName, null, shared: true, unowned: true, isTls, cancellationToken);
    }

    /// <summary>Opens the outermost layer for a client or the host; the caller prepares it.</summary>
    internal async ValueTask<NextContext> OpenEntryAsync(
        bool readOnly, string exportName, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (ThreadModel != ThreadModel.SerializeConnections)
        {
            return await OpenContextAsync(
                readOnly, exportName, connection, shared: false, unowned: connection is null, connection?.IsTls ?? false, cancellationToken)
                .ConfigureAwait(false);
        }
        // The place is taken here and not when the client connects: one that is slow in its handshake holds nothing.
        await _oneConnection.EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            NextContext context = await OpenContextAsync(
                readOnly, exportName, connection, shared: false, unowned: connection is null, connection?.IsTls ?? false, cancellationToken)
                .ConfigureAwait(false);
            context.ConnectionGate = _oneConnection;
            return context;
        }
        catch
        {
            _oneConnection.Exit();
            throw;
        }
    }

    private async ValueTask<NextContext> OpenContextAsync(
        bool readOnly,
        string exportName,
        NbdConnection? connection,
        bool shared,
        bool unowned,
        bool isTls,
        CancellationToken cancellationToken)
    {
        RequireRunning();
        if (exportName.Length == 0 && !shared)
        {
            exportName = await DefaultExportAsync(readOnly, connection, cancellationToken).ConfigureAwait(false)
                ?? throw new NbdException(NbdError.InvalidArgument, "there is no default export");
        }
        NbdOpenContext own = Filter is null
            ? new NbdOpenContext(this, readOnly, exportName, connection, shared, isTls)
            : new NbdContext(this, readOnly, exportName, connection, shared, isTls);
        var context = new NextContext(own, unowned);
        await context.OpenAsync(cancellationToken).ConfigureAwait(false);
        if (unowned && !Remember(context))
        {
            await context.CloseAsync().ConfigureAwait(false);
            RequireRunning();
        }
        return context;
    }

    private void RequireRunning()
    {
        if (!_running)
        {
            throw new InvalidOperationException($"{Name} is not running: its chain has not started, or has ended.");
        }
    }

    private bool Remember(NextContext context)
    {
        lock (_unowned)
        {
            return _running && _unowned.Add(context);
        }
    }

    internal void Forget(NextContext context)
    {
        if (context.IsUnowned)
        {
            lock (_unowned)
            {
                _unowned.Remove(context);
            }
        }
    }

    /// <summary>From now on nothing is opened here any more; closes what its opener forgot.</summary>
    private async ValueTask CloseForgottenAsync()
    {
        NextContext[] forgotten;
        lock (_unowned)
        {
            _running = false;
            forgotten = [.. _unowned];
        }
        foreach (NextContext context in forgotten)
        {
            await context.CloseAsync().ConfigureAwait(false);
        }
    }
}
