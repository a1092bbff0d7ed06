namespace NbdKit.Copy;

/// <summary>A range of a copy that one worker deals with.</summary>
/// <param name="Kind">What to do.</param>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Number of bytes; for what is read, no more than a buffer holds.</param>
/// <param name="Sequence">Its number, from 0; the pieces follow each other without a gap.</param>
/// <param name="IsCopied">Whether it is at the destination already, and is only wanted for the hash.</param>
internal readonly record struct CopyPiece(PieceKind Kind, long Offset, long Length, long Sequence, bool IsCopied);
