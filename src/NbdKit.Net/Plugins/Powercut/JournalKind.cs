namespace NbdKit.Plugins.Powercut;

/// <summary>What a record of a <see cref="Journal"/> does to its range.</summary>
internal enum JournalKind
{
    /// <summary>Brings bytes.</summary>
    Write,

    /// <summary>Zeroes, and keeps the space.</summary>
    Zero,

    /// <summary>Zeroes, and may give up the space: a trim too.</summary>
    Trim,
}
