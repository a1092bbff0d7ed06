namespace NbdKit.Tests.Faults;

/// <summary>What the disk that loses power offers.</summary>
internal enum PowerCutDiskKind
{
    /// <summary>Everything.</summary>
    Full,

    /// <summary>Everything, but a flush is for one connection only.</summary>
    FlushesEachConnection,

    /// <summary>FUA and zeroes are made of other requests.</summary>
    EmulatesFua,

    /// <summary>Flushes only.</summary>
    TakesNoFua,

    /// <summary>FUA only.</summary>
    TakesNoFlush,
}
