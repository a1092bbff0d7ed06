namespace NbdKit.Tests.Faults;

/// <summary>What is wrong with a <see cref="DefectiveDisk"/>, which says that it may be shared.</summary>
public enum DiskDefect
{
    None,

    /// <summary>Of the last block of some writes only half is written.</summary>
    Tears,

    /// <summary>Some writes are answered and not done.</summary>
    LosesWrites,

    /// <summary>Some writes come one block too late.</summary>
    Misplaces,

    /// <summary>Each connection keeps what it has read, and does not learn what others write.</summary>
    KeepsReads,

    /// <summary>Each connection keeps what it writes until it is flushed itself.</summary>
    KeepsWrites,

    /// <summary>A flush makes durable what its own connection wrote.</summary>
    FlushesOwn,

    /// <summary>FUA makes nothing durable.</summary>
    IgnoresFua,
}
