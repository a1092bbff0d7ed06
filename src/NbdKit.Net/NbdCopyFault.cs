namespace NbdKit;

/// <summary>What made a copy fail.</summary>
public enum NbdCopyFault
{
    /// <summary>The source could not be read, or could not be asked for its extents.</summary>
    Source,

    /// <summary>The destination is too small or read-only, or could not be written or flushed.</summary>
    Destination,

    /// <summary>The verification found that the destination holds something else than the source.</summary>
    Mismatch,

    /// <summary>The journal of the copy cannot be used, or cannot be written.</summary>
    Journal,
}
