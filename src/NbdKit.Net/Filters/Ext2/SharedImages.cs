namespace NbdKit.Filters.Ext2;

/// <summary>The images that one filter has open. Safe for use by several threads.</summary>
internal sealed class SharedImages
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ImageKey, SharedImage> _images = [];

    /// <summary>The number of images that are open, or about to be opened or closed.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _images.Count;
            }
        }
    }

    /// <summary>Makes the caller a user of an image, until it calls <see cref="SharedImage.ReleaseAsync"/>.</summary>
    public async ValueTask<SharedImage> AcquireAsync(
        NbdBackend backend, ImageKey key, CancellationToken cancellationToken)
    {
        SharedImage? image;
        lock (_lock)
        {
            if (!_images.TryGetValue(key, out image))
            {
                image = new SharedImage(this, key);
                _images.Add(key, image);
            }
            image.Users++;
        }
        await image.OpenAsync(backend, cancellationToken).ConfigureAwait(false);
        return image;
    }

    /// <summary>Takes back one use; true if it was the last.</summary>
    public bool RemoveUser(SharedImage image)
    {
        lock (_lock)
        {
            return --image.Users == 0;
        }
    }

    public bool IsUsed(SharedImage image)
    {
        lock (_lock)
        {
            return image.Users > 0;
        }
    }

    /// <summary>Removes an image that is closed, unless somebody waits for it.</summary>
    public void Forget(ImageKey key, SharedImage image)
    {
        lock (_lock)
        {
            if (image.Users == 0)
            {
                _images.Remove(key);
            }
        }
    }
}
