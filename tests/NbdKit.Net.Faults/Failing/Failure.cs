namespace NbdKit.Faults.Failing;

/// <summary>What goes wrong in a callback.</summary>
internal enum Failure
{
    DiskFull,
    Unauthorized,
    NotSupported,
    Disposed,
    Cancelled,
    TimedOut,
    OutOfMemory,
    NullReference,
    Custom,
    UnknownError,
    LongMessage,

    /// <summary>What it answers makes no sense; where nothing is answered, an error that is none.</summary>
    Nonsense,

    Never,

    /// <summary>It succeeds, when all else has been answered.</summary>
    Late,
}
