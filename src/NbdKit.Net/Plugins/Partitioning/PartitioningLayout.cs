using NbdKit.Plugins.Members;

namespace NbdKit.Plugins.Partitioning;

/// <summary>
/// Partitions, and all between, before and after them, which is one more member, the frame: its bytes are those of the disk
/// without the partitions.
/// </summary>
internal sealed class PartitioningLayout : MemberLayout
{
    /// <summary>The number of the frame among the members; partition i has i + 1.</summary>
    public const int Frame = 0;

    // Stretches of the disk in order: where each begins, and on which member; and the bytes of the frame before it.
    private readonly List<(long Start, int Member, long FrameBefore)> _stretches = [];
    private readonly PartitioningPlan _plan;

    public PartitioningLayout(PartitioningPlan plan)
    {
        _plan = plan;
        long at = 0;
        long frame = 0;
        for (int i = 0; i < plan.Starts.Length; i++)
        {
            // There is always something to begin with, and a partition may follow another without a gap.
            if (plan.Starts[i] > at)
            {
                _stretches.Add((at, Frame, frame));
                frame += plan.Starts[i] - at;
            }
            _stretches.Add((plan.Starts[i], i + 1, frame));
            at = plan.Starts[i] + plan.Sizes[i];
        }
        if (plan.Size > at)
        {
            _stretches.Add((at, Frame, frame));
        }
    }

    public override long Size => _plan.Size;

    public override MemberPiece Locate(long offset)
    {
        int i = Find(offset);
        (long start, int member, long frameBefore) = _stretches[i];
        long end = i + 1 < _stretches.Count ? _stretches[i + 1].Start : Size;
        return new MemberPiece(member, offset - start + (member == Frame ? frameBefore : 0), end - offset);
    }

    public override long Before(int member, long offset)
    {
        if (member != Frame)
        {
            return Math.Clamp(offset - _plan.Starts[member - 1], 0, _plan.Sizes[member - 1]);
        }
        (long start, int on, long frameBefore) = _stretches[Find(offset)];
        return frameBefore + (on == Frame ? offset - start : 0);
    }

    private int Find(long offset)
    {
        int low = 0;
        int high = _stretches.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) >>> 1;
            (low, high) = _stretches[middle].Start <= offset ? (middle, high) : (low, middle - 1);
        }
        return low;
    }
}
