using NbdKit.Layers;

namespace NbdKit.Filters.Extents;

/// <summary>What all contexts share.</summary>
/// <param name="Map">What is where.</param>
internal sealed record ExtentlistState(ExtentMap Map)
{
    /// <summary>
    /// Keeps writes out of a range while it is being zeroed or trimmed: which of them came last decides what the range is.
    /// </summary>
    public RangeLock Changes { get; } = new();
}
