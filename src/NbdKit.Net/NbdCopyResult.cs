namespace NbdKit;

/// <summary>What a copy did.</summary>
public sealed record NbdCopyResult
{
    /// <summary>Size of the source in bytes.</summary>
    public required long Size { get; init; }

    /// <summary>Bytes that were read from the source; what its extents call zeroes is not read.</summary>
    public required long BytesRead { get; init; }

    /// <summary>Bytes that were written to the destination as data.</summary>
    public required long BytesWritten { get; init; }

    /// <summary>
    /// Bytes that the destination was asked to make zero, or had to be sent as zeroes if it is a stream that cannot seek.
    /// </summary>
    public required long BytesZeroed { get; init; }

    /// <summary>Bytes that an earlier run of the same copy had brought to stable storage, by its journal.</summary>
    public required long BytesResumed { get; init; }

    /// <summary>The SHA-256 of the whole content of the source: 32 bytes, or null if it was not asked for.</summary>
    public ReadOnlyMemory<byte>? Sha256 { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }
}
