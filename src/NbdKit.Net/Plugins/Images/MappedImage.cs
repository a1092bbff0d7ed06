namespace NbdKit.Plugins.Images;

/// <summary>A disk in an image format: a map from the offsets of the disk to places in chains. Nothing in it is trusted.</summary>
internal abstract class MappedImage
{
    /// <summary>The size of the disk in bytes.</summary>
    public abstract long Size { get; }

    /// <summary>Whether pieces may be compressed.</summary>
    public virtual bool IsPacked => false;

    /// <summary>Finds the piece at an offset, if the tables that say so were read.</summary>
    /// <param name="offset">An offset inside the disk.</param>
    /// <param name="piece">The piece, at least one byte and not beyond the end of the disk.</param>
    /// <param name="missing">If the tables were not read: what to read.</param>
    /// <exception cref="NbdException">The image is damaged there (EIO).</exception>
    public abstract bool TryLocate(long offset, out MappedPiece piece, out MappedPage missing);

    /// <summary>Decompresses a part of a piece.</summary>
    /// <param name="piece">The piece at the offset.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="buffer">The memory to fill, not longer than the piece.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public virtual ValueTask UnpackAsync(
        MappedPiece piece, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => throw new NotSupportedException();
}
