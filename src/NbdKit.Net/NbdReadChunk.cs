namespace NbdKit;

/// <summary>A part of what was read with <see cref="NbdClient.ReadSparseAsync"/>.</summary>
/// <param name="Offset">First byte, in the export.</param>
/// <param name="Length">Number of bytes, more than 0.</param>
/// <param name="IsHole">
/// Whether the server said that it holds only zeroes instead of sending them (NBD_REPLY_TYPE_OFFSET_HOLE). The buffer is left as
/// it was there.
/// </param>
public readonly record struct NbdReadChunk(long Offset, int Length, bool IsHole);
