namespace NbdKit;

/// <summary>
/// A filter's own context: everything that <see cref="NbdOpenContext"/> says, and control over which context of the layer
/// below serves it (nbdkit's <c>nbdkit_context</c>).
/// </summary>
public sealed class NbdContext : NbdOpenContext
{
    private readonly Lock _lock = new();
    private NextContext? _next;
    private bool _isPrepared;
    private bool _isClosing;
    private bool _keepsNext;

    private bool _isClosed;

    // Replaced contexts on their way to being closed.
    private List<Task>? _leaving;

    // What was opened for this context and is not closed yet.
    private List<NextContext>? _opened;

    internal NbdContext(
        NbdBackend backend, bool readOnly, string exportName, NbdConnection? connection, bool shared, bool isTls)
        : base(backend, readOnly, exportName, connection, shared, isTls)
    {
    }

    /// <summary>The context that is attached now, or null.</summary>
    public NextContext? Next => Volatile.Read(ref _next);

    /// <summary>
    /// Opens the layer below with the same read-only flag and export name, and attaches it: what a filter's
    /// <see cref="INbdFilter.OpenAsync"/> normally does first.
    /// </summary>
    /// <param name="cancellationToken">Gives up the open.</param>
    /// <exception cref="InvalidOperationException">This context is closing.</exception>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public ValueTask OpenNextAsync(CancellationToken cancellationToken)
        => OpenNextAsync(ReadOnly, ExportName, cancellationToken);

    /// <summary>
    /// Opens the layer below as the filter wishes, and attaches it; once this layer is prepared, prepares it before that. What
    /// was attached before is closed when its last call has ended, unless it is shared. So a data call that failed may simply
    /// open the layer below again, and go on with <see cref="Next"/>.
    /// </summary>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="exportName">The export to open; "" for the default export of the layer below.</param>
    /// <param name="cancellationToken">Gives up the open.</param>
    /// <exception cref="InvalidOperationException">This context is closing.</exception>
    /// <exception cref="NbdException">The layer below refused.</exception>
    public async ValueTask OpenNextAsync(bool readOnly, string exportName, CancellationToken cancellationToken)
    {
        NextContext next = await Backend.OpenNextAsync(readOnly, exportName, this, cancellationToken).ConfigureAwait(false);
        NextContext? old;
        bool serving;
        try
        {
            serving = Volatile.Read(ref _isPrepared);
            if (serving)
            {
                await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            }
            old = SetNext(next);
        }
        catch
        {
            await next.CloseAsync().ConfigureAwait(false);
            throw;
        }
        if (old is null or { IsUnowned: true })
        {
            return;
        }
        if (serving)
        {
            // The caller may be a call that began on it.
            CloseWhenIdle(old);
        }
        else
        {
            await old.CloseAsync().ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Attaches another context of the layer below, or none (nbdkit's <c>nbdkit_context_set_next</c>). Allowed at any time
    /// until the filter's <see cref="INbdFilterHandle.FinalizeAsync"/>, also while calls run; null also in and after that.
    /// </summary>
    /// <param name="next">
    /// The context to attach, or null to detach. What is attached is prepared (if attached while opening or preparing),
    /// finalized and closed by the library, except for a shared context, which the library prepares if need be and which stays
    /// the filter's to finalize and close, at the latest in <see cref="INbdFilter.CleanupAsync"/>.
    /// </param>
    /// <returns>
    /// What was attached before, or null. It is the filter's from now on: finalize and close it, or dispose of it; what is
    /// forgotten is closed with the context that it was opened for, with a warning. Calls that began on it finish on it; its
    /// <see cref="NextContext.FinalizeAsync"/> waits for the last of them. A call that may have begun on it must not wait for
    /// that itself: it uses <see cref="CloseWhenIdle"/>.
    /// </returns>
    /// <exception cref="InvalidOperationException">
    /// The context belongs to another layer, is attached already, is finalized or closed, was not prepared although this
    /// layer is, or this context is closing; or the filter serves and said that it keeps its next.
    /// </exception>
    public NextContext? SetNext(NextContext? next)
    {
        NextContext? old;
        lock (_lock)
        {
            if (_keepsNext && !_isClosing)
            {
                throw new InvalidOperationException(
                    $"The filter {Backend.Name} said that it keeps its next; it cannot attach or detach one while it serves.");
            }
            if (next is not null)
            {
                if (_isClosing)
                {
                    throw new InvalidOperationException($"The context of {Backend.Name} is closing: nothing can be attached to it.");
                }
                RequireBelow(next, "attached");
                next.Attach(mustBePrepared: _isPrepared);
            }
            old = _next;
            Volatile.Write(ref _next, next);
        }
        old?.Detach();
        return old;
    }

    /// <summary>
    /// Has the library finalize and close a context of the layer below as soon as its last call has ended, at the latest before
    /// this context is closed. Meant for what <see cref="SetNext"/> gave back to a data call, which must not wait for itself.
    /// </summary>
    /// <param name="context">The context; not to be used by the caller any more, except by a call that began on it.</param>
    /// <exception cref="InvalidOperationException">It is attached, or belongs to another layer.</exception>
    public void CloseWhenIdle(NextContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        RequireBelow(context, "given");
        Task closing = context.CloseAsync().AsTask();
        lock (_lock)
        {
            _leaving ??= [];
            _leaving.RemoveAll(task => task.IsCompleted);
            _leaving.Add(closing);
        }
    }

    /// <summary>Called once this layer was prepared: from then on only prepared contexts may be attached.</summary>
    internal void BecomePrepared()
    {
        lock (_lock)
        {
            Volatile.Write(ref _isPrepared, true);
        }
    }

    /// <summary>Called when this layer serves and its filter said that it keeps its next.</summary>
    internal void KeepNext()
    {
        lock (_lock)
        {
            _keepsNext = true;
        }
    }

    /// <summary>Called when this layer's context is closing: nothing may be attached any more.</summary>
    internal void BeginClosing()
    {
        lock (_lock)
        {
            _isClosing = true;
        }
    }

    /// <summary>Notes what was opened for this context; refused once it is closed.</summary>
    internal bool Remember(NextContext context)
    {
        lock (_lock)
        {
            if (!_isClosed)
            {
                (_opened ??= []).Add(context);
            }
            return !_isClosed;
        }
    }

    internal void Forget(NextContext context)
    {
        lock (_lock)
        {
            _opened?.Remove(context);
        }
    }

    /// <summary>What the filter opened for this context and has neither closed nor attached, at the end of this context.</summary>
    internal NextContext[] TakeForgotten()
    {
        lock (_lock)
        {
            _isClosed = true;
            return _opened is null ? [] : [.. _opened.Where(context => !context.IsHeldByAContext)];
        }
    }

    /// <summary>Completes when every replaced context that was left to the library is closed.</summary>
    internal Task WaitForLeavingAsync()
    {
        lock (_lock)
        {
            return _leaving is null ? Task.CompletedTask : Task.WhenAll(_leaving);
        }
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
                    $"The context of {next.Backend.Name} below {Backend.Name} {next.StateText}: it was finalized while attached.");
            }
        }
    }

    private void RequireBelow(NextContext next, string verb)
    {
        if (next.Backend != Backend.Next)
        {
            throw new InvalidOperationException(
                $"A context of {next.Backend.Name} was {verb} to {Backend.Name}, which is not directly above it.");
        }
    }
}
