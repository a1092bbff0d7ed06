namespace NbdKit;

/// <summary>
/// A filter's own context: everything that <see cref="NbdOpenContext"/> says, and control over which context of the layer
/// below serves it (nbdkit's <c>nbdkit_context</c>).
/// </summary>
public sealed class NbdContext : NbdOpenContext
{
    private NextContext? _next;

    internal NbdContext(
        NbdBackend backend, bool readOnly, string exportName, NbdConnection? connection, bool shared)
        : base(backend, readOnly, exportName, connection, shared)
    {
    }

    /// <summary>The context that is attached now, or null.</summary>
    public NextContext? Next => Volatile.Read(ref _next);

    /// <summary>Set once this layer was prepared: from then on only prepared contexts may be attached.</summary>
    internal bool IsPrepared { get; set; }

    /// <summary>Set when this layer's context is closing: nothing may be attached any more.</summary>
    internal bool IsClosing { get; set; }

    /// <summary>
    /// Opens the layer below with the same read-only flag and export name, and attaches it: what a filter's
    /// <see cref="INbdFilter.OpenAsync"/> normally does first.
    /// </summary>
    /// <param name="cancellationToken">Gives up the open.</param>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public ValueTask OpenNextAsync(CancellationToken cancellationToken)
        => OpenNextAsync(ReadOnly, ExportName, cancellationToken);

    /// <summary>Opens the layer below as the filter wishes, and attaches it.</summary>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="exportName">The export to open; "" for the default export of the layer below.</param>
    /// <param name="cancellationToken">Gives up the open.</param>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public async ValueTask OpenNextAsync(bool readOnly, string exportName, CancellationToken cancellationToken)
    {
        NextContext next = await Backend.OpenNextAsync(readOnly, exportName, this, cancellationToken).ConfigureAwait(false);
        NextContext? old = SetNext(next);
        if (old is not null)
        {
            await old.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Attaches another context of the layer below, or none (nbdkit's <c>nbdkit_context_set_next</c>).
    /// </summary>
    /// <param name="next">
    /// The context to attach, or null to detach. What is attached is prepared (if attached while opening), finalized and
    /// closed by the library, except for a shared context, which the library prepares if need be and which stays the
    /// filter's to finalize and close, at the latest in <see cref="INbdFilter.CleanupAsync"/>.
    /// </param>
    /// <returns>
    /// What was attached before, or null. It is the filter's from now on: finalize and close it, or dispose of it. Requests
    /// that began on it finish on it; its <see cref="NextContext.FinalizeAsync"/> waits for the last of them.
    /// </returns>
    /// <exception cref="InvalidOperationException">
    /// The context belongs to another layer, is attached elsewhere, is finalized or closed, was not prepared although this
    /// layer is, or this context is closing.
    /// </exception>
    public NextContext? SetNext(NextContext? next)
    {
        if (next is not null)
        {
            if (IsClosing)
            {
                throw new InvalidOperationException($"The context of {Backend.Name} is closing: nothing can be attached to it.");
            }
            if (next.Backend != Backend.Next)
            {
                throw new InvalidOperationException(
                    $"A context of {next.Backend.Name} was attached to {Backend.Name}, which is not directly above it.");
            }
            next.Attach(mustBePrepared: IsPrepared);
        }
        NextContext? old = Interlocked.Exchange(ref _next, next);
        old?.Detach();
        return old;
    }

    /// <summary>
    /// Takes hold of the attached context for one call, so that it is not finalized before the call ends.
    /// </summary>
    internal NextContext EnterNext()
    {
        while (true)
        {
            NextContext? next = Volatile.Read(ref _next);
            if (next is null)
            {
                return NextContext.Detached;
            }
            if (next.TryEnter())
            {
                return next;
            }
            if (ReferenceEquals(next, Volatile.Read(ref _next)))
            {
                throw new InvalidOperationException(
                    $"The context of {next.Backend.Name} below {Backend.Name} is {next.StateText}: it was finalized while attached.");
            }
        }
    }
}
