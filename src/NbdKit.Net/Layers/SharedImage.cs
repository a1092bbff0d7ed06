namespace NbdKit.Layers;

/// <summary>
/// One image, open once for all who use it: opened for the first of them, closed with the last, and opened again if
/// another one comes later.
/// </summary>
/// <typeparam name="T">What is in the image. It is disposed of before the image is closed, if it can be.</typeparam>
internal sealed class SharedImage<T>
    where T : class
{
    private readonly SharedImages<T> _owner;
    private readonly ImageKey _key;

    // Held while the context is opened or closed, so that there is never more than one.
    private readonly SemaphoreSlim _changing = new(1, 1);
    private NextContext? _context;
    private T? _content;

    public SharedImage(SharedImages<T> owner, ImageKey key)
    {
        _owner = owner;
        _key = key;
    }

    /// <summary>The number of those who use it or wait for it; guarded by the owner's lock.</summary>
    public int Users { get; set; }

    /// <summary>The context of the layer below; only for users.</summary>
    public NextContext Context => _context!;

    /// <summary>What is in it; only for users.</summary>
    public T Content => _content!;

    /// <summary>Opens the image unless it is open. On failure the caller is a user no longer.</summary>
    public async ValueTask OpenAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        bool isOpen = false;
        try
        {
            await _changing.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (_context is null)
                {
                    await OpenFirstAsync(backend, cancellationToken).ConfigureAwait(false);
                }
                isOpen = true;
            }
            finally
            {
                _changing.Release();
            }
        }
        finally
        {
            if (!isOpen)
            {
                await ReleaseAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>Ends one use; the last one closes the image.</summary>
    public async ValueTask ReleaseAsync()
    {
        if (!_owner.RemoveUser(this))
        {
            return;
        }
        await _changing.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            // Somebody may have come while this one waited, and finds the image still open.
            if (_owner.IsUsed(this))
            {
                return;
            }
            NextContext? context = _context;
            _context = null;
            T? content = _content;
            _content = null;
            try
            {
                await DisposeAsync(content).ConfigureAwait(false);
            }
            finally
            {
                try
                {
                    await (context?.CloseAsync() ?? default).ConfigureAwait(false);
                }
                finally
                {
                    _owner.Forget(_key, this);
                }
            }
        }
        finally
        {
            _changing.Release();
        }
    }

    private async ValueTask OpenFirstAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        NextContext context = await backend.OpenSharedNextAsync(
            _key.ReadOnly, _key.ExportName, _key.IsTls, cancellationToken).ConfigureAwait(false);
        try
        {
            await context.PrepareAsync(cancellationToken).ConfigureAwait(false);
            _content = await _owner.MountAsync(backend, context, cancellationToken).ConfigureAwait(false);
            _context = context;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static ValueTask DisposeAsync(T? content)
        => content is IAsyncDisposable disposable ? disposable.DisposeAsync() : default;
}
