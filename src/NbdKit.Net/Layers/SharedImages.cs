namespace NbdKit.Layers;

/// <summary>The images that one filter has open. Safe for use by several threads.</summary>
/// <typeparam name="T">What is in an image.</typeparam>
/// <param name="mount">
/// Finds what is in an image: gets the layer that opened the layer below, and a prepared context of the layer below.
/// </param>
internal sealed class SharedImages<T>(Func<NbdBackend, NextContext, CancellationToken, ValueTask<T>> mount)
    where T : class
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ImageKey, SharedImage<T>> _images = [];

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

    /// <summary>Makes the caller a user of an image, until it calls <see cref="SharedImage{T}.ReleaseAsync"/>.</summary>
    public async ValueTask<SharedImage<T>> AcquireAsync(
        NbdBackend backend, ImageKey key, CancellationToken cancellationToken)
    {
        SharedImage<T>? image;
        lock (_lock)
        {
            if (!_images.TryGetValue(key, out image))
            {
                image = new SharedImage<T>(this, key);
                _images.Add(key, image);
            }
            image.Users++;
        }
        await image.OpenAsync(backend, cancellationToken).ConfigureAwait(false);
        return image;
    }

    public ValueTask<T> MountAsync(NbdBackend backend, NextContext next, CancellationToken cancellationToken)
        => mount(backend, next, cancellationToken);

    /// <summary>Takes back one use; true if it was the last.</summary>
    public bool RemoveUser(SharedImage<T> image)
    {
        lock (_lock)
        {
            return --image.Users == 0;
        }
    }

    public bool IsUsed(SharedImage<T> image)
    {
        lock (_lock)
        {
            return image.Users > 0;
        }
    }

    /// <summary>Removes an image that is closed, unless somebody waits for it or another one has taken its place.</summary>
    public void Forget(ImageKey key, SharedImage<T> image)
    {
        lock (_lock)
        {
            if (image.Users == 0 && _images.GetValueOrDefault(key) == image)
            {
                _images.Remove(key);
            }
        }
    }
}
