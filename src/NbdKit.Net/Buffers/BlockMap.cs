namespace NbdKit.Buffers;

/// <summary>
/// The state of every block of a disk of any size, two bits each: a tree whose leaves are bitmaps, and in which a range of
/// equal blocks, however large, is one node. An untouched disk costs nothing, and neither does one that is trimmed whole.
/// </summary>
/// <remarks>
/// Reads take no lock and may run beside changes: a change is seen by every read that begins after it returned. What the
/// caller stored before a change is visible to whoever sees the change.
/// </remarks>
internal sealed partial class BlockMap
{
    private const int LeafShift = 14;
    private const int FanShift = 9;

    private readonly Lock _changes = new();
    private readonly int _levels;
    private Node? _root;

    /// <summary>Creates the map of a disk of which every block is below.</summary>
    /// <param name="blocks">The number of blocks.</param>
    public BlockMap(long blocks)
    {
        while (SpanShift(_levels) < 62 && blocks > 1L << SpanShift(_levels))
        {
            _levels++;
        }
    }

    /// <summary>Whether no block was ever changed.</summary>
    public bool IsEmpty => Volatile.Read(ref _root) is null;

    /// <summary>The state of a block.</summary>
    public BlockState this[long block] => Run(block, block + 1, out _);

    /// <summary>The state of a block, and how many that follow share it.</summary>
    /// <param name="first">The block.</param>
    /// <param name="limit">The block at which to stop looking; more than <paramref name="first"/>.</param>
    /// <param name="end">The first block that differs, or <paramref name="limit"/>.</param>
    public BlockState Run(long first, long limit, out long end)
    {
        BlockState state = default;
        long at = first;
        while (at < limit)
        {
            Node? node = Volatile.Read(ref _root);
            int level = _levels;
            while (node is Inner inner)
            {
                level--;
                node = Volatile.Read(ref inner.Children[(int)(at >> SpanShift(level)) & ((1 << FanShift) - 1)]);
            }
            long stop = Math.Min(limit, ((at >> SpanShift(level)) + 1) << SpanShift(level));
            var leaf = node as Leaf;
            BlockState here = leaf?.Get(at) ?? StateOf(node);
            if (at == first)
            {
                state = here;
            }
            else if (here != state)
            {
                break;
            }
            at = leaf?.RunEnd(at + 1, stop, state) ?? stop;
            if (at < stop)
            {
                break;
            }
        }
        end = at;
        return state;
    }

    /// <summary>Changes the state of a range of blocks.</summary>
    /// <param name="first">The first block.</param>
    /// <param name="end">The first block after the range.</param>
    /// <param name="state">Their new state.</param>
    public void Set(long first, long end, BlockState state)
    {
        if (first >= end)
        {
            return;
        }
        lock (_changes)
        {
            Volatile.Write(ref _root, Set(_root, _levels, 0, first, end, state));
        }
    }

    private static Node? Set(Node? node, int level, long start, long first, long end, BlockState state)
    {
        long span = 1L << SpanShift(level);
        if (first <= start && end - start >= span)
        {
            return Uniform.Of(state);
        }
        if (node is not (Inner or Leaf) && StateOf(node) == state)
        {
            return node;
        }
        long from = Math.Max(first, start);
        long to = Math.Min(end, start + span);
        if (level == 0)
        {
            Leaf leaf = node as Leaf ?? new Leaf(StateOf(node));
            leaf.Set(from, to, state);
            return leaf;
        }
        Inner inner = node as Inner ?? new Inner(node);
        int shift = SpanShift(level - 1);
        for (long i = (from - start) >> shift; i <= (to - 1 - start) >> shift; i++)
        {
            ref Node? child = ref inner.Children[(int)i];
            Volatile.Write(ref child, Set(child, level - 1, start + (i << shift), from, to, state));
        }
        return inner;
    }

    private static int SpanShift(int level) => LeafShift + (level * FanShift);

    private static BlockState StateOf(Node? node) => node is Uniform uniform ? uniform.State : BlockState.Below;
}
