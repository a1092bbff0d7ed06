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
    ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken);
}
