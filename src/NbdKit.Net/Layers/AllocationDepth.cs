namespace NbdKit.Layers;

/// <summary>
/// The meta context <c>qemu:allocation-depth</c>: in which of the layers that make up a disk a range is allocated. 0 is none,
/// 1 the topmost, 2 the one below it, and so on.
/// </summary>
internal static class AllocationDepth
{
    /// <summary>
    /// Asks the layer below, which is one layer deeper by <paramref name="deeper"/>. A layer that does not know the context is
    /// itself one layer, in which all but holes is allocated.
    /// </summary>
    /// <param name="next">The layer below.</param>
    /// <param name="offset">First byte; the start of the list's window.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags">The flags of the request.</param>
    /// <param name="extents">Receives the depths.</param>
    /// <param name="deeper">What is added to the depth of everything that is allocated below.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async ValueTask AskAsync(
        NextContext next, long offset, long length, RequestFlags flags, ExtentList extents, ulong deeper,
        CancellationToken cancellationToken)
    {
        bool isKnown = next.Info.CanExtents && next.Info.MetaContexts.Contains(ExtentList.AllocationDepth);
        var below = new ExtentList(
            offset, extents.End, isKnown ? ExtentList.AllocationDepth : ExtentList.BaseAllocation);
        await next.ExtentsAsync(offset, length, flags, below, cancellationToken).ConfigureAwait(false);
        for (int i = 0; i < below.Count && !extents.IsFull; i++)
        {
            ulong depth = isKnown ? (ulong)below[i].Status : (below[i].Status & ExtentStatus.Hole) != 0 ? 0ul : 1;
            extents.Add(below[i].Offset, below[i].Length, (ExtentStatus)(depth == 0 ? 0 : depth + deeper));
        }
    }
}
