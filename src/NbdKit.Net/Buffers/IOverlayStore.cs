namespace NbdKit.Buffers;

/// <summary>
/// Keeps the bytes of an overlay by their offset on the disk, sparsely. Safe for parallel calls; what overlapping calls
/// leave behind is some mixture of their bytes, and never the bytes of another range.
/// </summary>
internal interface IOverlayStore : IDisposable
{
    /// <summary>Fills the whole buffer. What was never written reads as anything.</summary>
    ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken);

    /// <summary>Writes all the data.</summary>
    ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken);

    /// <summary>Says that a range, of any length, is not needed any more: its space may be given up.</summary>
    void Discard(long offset, long length);
}
