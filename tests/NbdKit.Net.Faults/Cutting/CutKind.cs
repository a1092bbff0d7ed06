namespace NbdKit.Faults.Cutting;

/// <summary>How a peer stops.</summary>
internal enum CutKind
{
    /// <summary>It closes in order.</summary>
    Finish,

    /// <summary>It is gone at once.</summary>
    Reset,

    /// <summary>It says no more, and keeps the connection.</summary>
    Stall,
}
