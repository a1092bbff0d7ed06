namespace NbdKit.Plugins.Images;

/// <summary>The changes in the log of an image, as if they were in place. It never changes, so that any thread may look.</summary>
internal sealed class VhdxOverlay
{
    // In order, and none over another.
    private readonly VhdxChange[] _changes;

    /// <param name="changes">The changes from the oldest to the newest, which holds where several are in the same place.</param>
    public VhdxOverlay(IReadOnlyList<VhdxChange> changes)
    {
        int[] byStart = [.. Enumerable.Range(0, changes.Count).OrderBy(i => changes[i].Start)];
        long[] borders = [.. changes.SelectMany(change => new[] { change.Start, change.End }).Distinct().Order()];
        var kept = new List<VhdxChange>();
        var newest = new PriorityQueue<VhdxChange, int>();
        int next = 0;
        for (int i = 0; i + 1 < borders.Length; i++)
        {
            for (; next < byStart.Length && changes[byStart[next]].Start == borders[i]; next++)
            {
                newest.Enqueue(changes[byStart[next]], -byStart[next]);
            }
            while (newest.TryPeek(out VhdxChange top, out _) && top.End <= borders[i])
            {
                newest.Dequeue();
            }
            if (newest.TryPeek(out VhdxChange change, out _))
            {
                kept.Add(change with { Start = borders[i], End = borders[i + 1] });
            }
        }
        _changes = [.. kept];
    }

    /// <summary>Puts what has changed into bytes that were read from the image.</summary>
    public void Apply(long position, Span<byte> bytes)
    {
        for (int i = FirstAfter(position); i < _changes.Length && _changes[i].Start < position + bytes.Length; i++)
        {
            VhdxChange change = _changes[i];
            long from = Math.Max(position, change.Start);
            Span<byte> changed = bytes[(int)(from - position)..(int)(Math.Min(position + bytes.Length, change.End) - position)];
            if (change.Data is null)
            {
                changed.Clear();
            }
            else
            {
                change.Data.AsSpan((int)(from - change.Start), changed.Length).CopyTo(changed);
            }
        }
    }

    /// <summary>The change at a position, or, with nothing in it, the range up to the next one.</summary>
    /// <param name="position">A position in the image.</param>
    /// <param name="isChange">Whether there is one.</param>
    public VhdxChange At(long position, out bool isChange)
    {
        int i = FirstAfter(position);
        isChange = i < _changes.Length && _changes[i].Start <= position;
        return isChange ? _changes[i] : new VhdxChange(position, i < _changes.Length ? _changes[i].Start : long.MaxValue, null);
    }

    /// <summary>The first change that ends after a position.</summary>
    private int FirstAfter(long position)
    {
        int low = 0;
        int high = _changes.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_changes[middle].End <= position)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }
        return low;
    }
}
