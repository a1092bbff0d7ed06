namespace NbdKit;

/// <summary>How far a copy has come.</summary>
/// <param name="BytesDone">Bytes of the source that are dealt with: copied, zeroed or skipped.</param>
/// <param name="TotalBytes">Size of the source in bytes, or null for a stream of unknown length.</param>
/// <param name="Elapsed">Time since the copy began.</param>
/// <param name="IsVerifying">Whether the copy is complete and is now compared; the count began anew then.</param>
public readonly record struct NbdCopyProgress(long BytesDone, long? TotalBytes, TimeSpan Elapsed, bool IsVerifying);
