namespace NbdKit.Copy;

/// <summary>What is to be done with a piece of a copy.</summary>
internal enum PieceKind
{
    /// <summary>Nothing: there are no more pieces.</summary>
    End,

    /// <summary>It has to be read.</summary>
    Data,

    /// <summary>It was read with the plan, as a stream is.</summary>
    Filled,

    /// <summary>It reads as zeroes.</summary>
    Zero,

    /// <summary>It was copied before, and nothing else is wanted of it.</summary>
    Skipped,
}
