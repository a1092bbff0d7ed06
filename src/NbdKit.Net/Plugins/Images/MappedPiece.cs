namespace NbdKit.Plugins.Images;

/// <summary>A piece of an image's disk that is in one place.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Length">The number of bytes from the offset that was asked for.</param>
/// <param name="Source">The chain that has the bytes; null for a hole.</param>
/// <param name="Position">Where they begin in the chain; of a compressed piece, where the compressed block begins.</param>
internal readonly record struct MappedPiece(MappedPieceKind Kind, long Length, NextContext? Source, long Position)
{
    public static MappedPiece Hole(long length) => new(MappedPieceKind.Hole, length, null, 0);

    /// <summary>Whether another piece goes on where this one ends.</summary>
    public bool IsFollowedBy(in MappedPiece next)
        => next.Kind == Kind && next.Source == Source && Kind is MappedPieceKind.Data && next.Position == Position + Length;
}
