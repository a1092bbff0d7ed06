namespace NbdKit.Filters.Ext2;

/// <summary>
/// One image, open once for all who use it: opened for the first of them, closed with the last, and opened again if
/// another one comes later.
/// </summary>
internal sealed class SharedImage
{
    private readonly SharedImages _owner;
    private readonly ImageKey _key;

    // Held while the context is opened or closed, so that there is never more than one.
    private readonly SemaphoreSlim _changing = new(1, 1);
    private NextContext? _context;
    private Volume? _volume;

    public SharedImage(SharedImages owner, ImageKey key)
    {
        _owner = owner;
        _key = key;
    }

    /// <summary>The number of those who use it or wait for it; guarded by the owner's lock.</summary>
    public int Users { get; set; }

    /// <summary>The context of the layer below; only for users.</summary>
    public NextContext Context => _context!;

    /// <summary>The file system; only for users.</summary>
    public Volume Volume => _volume!;

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
            _volume = null;
            if (context is not null)
            {
                await context.CloseAsync().ConfigureAwait(false);
            }
            _owner.Forget(_key, this);
        }
        finally
        {
            _changing.Release();
        }
    }

    private async ValueTask OpenFirstAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        NextContext context = await backend.OpenNextAsync(_key.ReadOnly, _key.ExportName, null, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            await context.PrepareAsync(cancellationToken).ConfigureAwait(false);
            _volume = await Volume.MountAsync(context, cancellationToken).ConfigureAwait(false);
            _context = context;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }
}
