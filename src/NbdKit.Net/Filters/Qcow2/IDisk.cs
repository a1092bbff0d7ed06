namespace NbdKit.Filters.Qcow2;

/// <summary>A disk that is read: that of an image, or one that a backing file is.</summary>
internal interface IDisk : IAsyncDisposable
{
    /// <summary>Its size in bytes.</summary>
    long Size { get; }

    /// <summary>Whether reading may block a thread.</summary>
    bool IsBlocking { get; }

    /// <summary>Fills a buffer; the range is inside the disk.</summary>
    ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken);

    /// <summary>Adds at least one extent for a range inside the disk.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags">The flags of the request.</param>
    /// <param name="steps">How many steps it may take in all the images together; the first one is always taken.</param>
    /// <param name="extents">Receives the extents.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>How many of the steps are left.</returns>
    ValueTask<int> ExtentsAsync(
        long offset, long length, RequestFlags flags, int steps, ExtentList extents, CancellationToken cancellationToken);
}
