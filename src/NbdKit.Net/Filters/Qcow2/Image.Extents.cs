namespace NbdKit.Filters.Qcow2;

// What the disk is made of.
internal sealed partial class Image
{
    // A disk may be in as many pieces as it has clusters. An answer may stop early, and a request may not be held up for long.
    public const int MostSteps = 1024;

    public async ValueTask<int> ExtentsAsync(
        long offset, long length, RequestFlags flags, int steps, ExtentList extents, CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        bool isDepth = extents.MetaContext == ExtentList.AllocationDepth;
        do
        {
            cancellationToken.ThrowIfCancellationRequested();
            steps--;
            ClusterRun run = await _map.FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            long count = run.Length;
            if (run.Kind != ClusterKind.Unallocated)
            {
                extents.Add(offset, count, isDepth ? (ExtentStatus)1 : StatusOf(run.Kind));
            }
            else if (Backing is null || offset >= Backing.Size)
            {
                extents.Add(offset, count, isDepth ? 0 : ExtentStatus.Hole | ExtentStatus.Zero);
            }
            else
            {
                count = Math.Min(count, Backing.Size - offset);
                // If it says less, what is said of the rest comes next, but for the steps.
                (count, steps) = await AddBackingAsync(Backing, offset, count, flags, steps, extents, cancellationToken)
                    .ConfigureAwait(false);
            }
            offset += count;
            length -= count;
        }
        while (length > 0 && !extents.IsFull && !(one && extents.Count > 1) && steps > 0);
        return steps;
    }

    private static ExtentStatus StatusOf(ClusterKind kind) => kind switch
    {
        ClusterKind.Zero => ExtentStatus.Hole | ExtentStatus.Zero,
        ClusterKind.ReservedZero => ExtentStatus.Zero,
        _ => ExtentStatus.Data,
    };

    /// <summary>Adds what the disk below says of a range, as far as it says anything; returns how far that is, and the steps that are left.</summary>
    private static async ValueTask<(long Covered, int Steps)> AddBackingAsync(
        IDisk backing, long offset, long length, RequestFlags flags, int steps, ExtentList extents, CancellationToken cancellationToken)
    {
        bool isDepth = extents.MetaContext == ExtentList.AllocationDepth;
        var below = new ExtentList(offset, offset + length, extents.MetaContext);
        steps = await backing.ExtentsAsync(offset, length, flags, steps, below, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in below)
        {
            bool isDeeper = isDepth && extent.Status != 0;
            extents.Add(extent.Offset, extent.Length, isDeeper ? extent.Status + 1 : extent.Status);
        }
        return (below.Covered - offset, steps);
    }
}
