namespace NbdKit.Buffers;

// What is done to ranges without payload, which may be as long as the disk: entries that are empty are stepped over,
// whatever their height in the tree, and those that a zero covers are cut off whole.
internal sealed partial class SparseArray
{
    /// <summary>Makes a range zero.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="keepPages">
    /// Whether pages that exist stay, filled with zeroes. If not, those that are covered as a whole are given up. A
    /// page that is covered in part stays in any case, and none is made.
    /// </param>
    /// <param name="cancellationToken">Gives up between directories.</param>
    public void Zero(long offset, long length, bool keepPages, CancellationToken cancellationToken)
    {
        long end = offset + length;
        int head = (int)offset & PageMask;
        int tail = (int)end & PageMask;
        long first = (offset >> PageShift) + (head == 0 ? 0 : 1);
        // The page at the end of the disk is whole even if it is short, and so is every directory above it.
        long last = end == Size ? long.MaxValue : end >> PageShift;
        if (first > last)
        {
            ClearWithin(offset, (int)length);
            return;
        }
        if (head != 0)
        {
            ClearWithin(offset, (int)Math.Min(length, PageSize - head));
        }
        ZeroPages(_root, _rootShift, 0, first, last, keepPages, cancellationToken);
        if (tail != 0 && end != Size)
        {
            ClearWithin(end - tail, tail);
        }
    }

    /// <summary>Reports what of a range has pages, and what has none and is zero.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="onlyFirst">Whether one extent is enough.</param>
    /// <param name="extents">Receives the extents.</param>
    public void GetExtents(long offset, long length, bool onlyFirst, ExtentList extents)
    {
        long end = offset + length;
        long lastPage = (end - 1) >> PageShift;
        // The first extent is complete when the second one begins.
        while (offset < end && !extents.IsFull && !(onlyFirst && extents.Count > 1))
        {
            long runEnd = RunEnd(offset >> PageShift, out bool present);
            long to = runEnd > lastPage ? end : runEnd << PageShift;
            extents.Add(offset, to - offset, present ? ExtentStatus.Data : ExtentStatus.Hole | ExtentStatus.Zero);
            offset = to;
        }
    }

    private void ClearWithin(long offset, int count)
        => Find(offset >> PageShift)?.AsSpan((int)offset & PageMask, count).Clear();

    private static void ZeroPages(
        Slot[] directory,
        int shift,
        long directoryFirst,
        long first,
        long last,
        bool keepPages,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        for (long i = Math.Max(0, first - directoryFirst) >> shift; i < directory.Length; i++)
        {
            long entryFirst = directoryFirst + (i << shift);
            if (entryFirst >= last)
            {
                return;
            }
            ref object? slot = ref directory[i].Value;
            object? child = Volatile.Read(ref slot);
            if (child is null)
            {
                continue;
            }
            // Who found this entry a moment ago and still writes below it overlaps with this zero: its bytes may go.
            if (!keepPages && first <= entryFirst && entryFirst + (1L << shift) <= last)
            {
                Volatile.Write(ref slot, null);
            }
            else if (shift == 0)
            {
                ((byte[])child).AsSpan().Clear();
            }
            else
            {
                ZeroPages(
                    (Slot[])child, shift - DirectoryBits, entryFirst, first, last, keepPages, cancellationToken);
            }
        }
    }

    /// <summary>The page after a run of pages that all exist, or all do not, as far as one directory tells.</summary>
    private long RunEnd(long page, out bool present)
    {
        Slot[] directory = _root;
        int shift = _rootShift;
        while (true)
        {
            long index = (page >> shift) & DirectoryMask;
            object? child = Volatile.Read(ref directory[index].Value);
            if (child is null || shift == 0)
            {
                present = child is not null;
                long end = index + 1;
                while (end < directory.Length && Volatile.Read(ref directory[end].Value) is not null == present)
                {
                    end++;
                }
                return ((page >> shift) - index + end) << shift;
            }
            directory = (Slot[])child;
            shift -= DirectoryBits;
        }
    }
}
