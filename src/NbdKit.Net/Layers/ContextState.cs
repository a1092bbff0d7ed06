namespace NbdKit.Layers;

/// <summary>The life of a context. It only moves forward, except that a failed prepare leads straight to closed.</summary>
internal enum ContextState
{
    Opening,
    Open,
    Preparing,
    Prepared,
    PrepareFailed,
    Finalizing,
    Finalized,
    Closed,
}
