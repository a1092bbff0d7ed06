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
        ZeroBelow(_root, _rootShift, 0, offset, offset + length, keepPages, cancellationToken);
    }

    /// <summary>Reports what of a range has pages, and what has none and is zero.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="onlyFirst">Whether one extent is enough.</param>
    /// <param name="extents">Receives the extents.</param>
    public void GetExtents(long offset, long length, bool onlyFirst, ExtentList extents)
    {
        long end = offset + length;
        // The first extent is complete when the second one begins.
        while (offset < end && !extents.IsFull && !(onlyFirst && extents.Count > 1))
        {
            long run = RunOf(offset, end - offset, out bool used);
            // Regions do not show in the extents.
            while (offset + run < end && RunOf(offset + run, end - offset - run, out bool goesOn) is var more && goesOn == used)
            {
                run += more;
            }
            extents.Add(offset, run, used ? ExtentStatus.Data : ExtentStatus.Hole | ExtentStatus.Zero);
            offset += run;
        }
    }

    private void ZeroBelow(
        Slot[] directory, int shift, long directoryFirst, long from, long to, bool keepPages, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        long first = Math.Max(0, (from >> Region.Shift) - directoryFirst) >> shift;
        for (long i = first; i < directory.Length; i++)
        {
            long number = directoryFirst + (i << shift);
            long begin = number << Region.Shift;
            if (begin >= to)
            {
                return;
            }
            ref object? slot = ref directory[i].Value;
            object? child = Volatile.Read(ref slot);
            if (child is null)
            {
                continue;
            }
            // The region at the end of the disk is whole even if it is short, and so is every directory above it.
            bool isWhole = from <= begin && (to == Size || to - begin >= (long)Region.Size << shift);
            if (shift == 0)
            {
                var region = (Region)child;
                int within = (int)Math.Max(0, from - begin);
                ZeroWithin(region, within, (int)Math.Min(Region.Size, to - begin) - within, to == Size, keepPages);
            }
            else
            {
                ZeroBelow((Slot[])child, shift - DirectoryBits, number, from, to, keepPages, cancellationToken);
            }
            if (isWhole && !keepPages)
            {
                // Who found this entry a moment ago and still writes below it overlaps with this zero: its bytes may go.
                Volatile.Write(ref slot, null);
            }
        }
    }

    private static void ZeroWithin(Region region, int offset, int count, bool isEnd, bool keepPages)
    {
        int end = offset + count;
        int first = (offset + PageSize - 1) >> Region.PageShift;
        // The page at the end of the disk is whole even if it is short.
        int last = isEnd && end < Region.Size ? (end + PageSize - 1) >> Region.PageShift : end >> Region.PageShift;
        if (keepPages || first >= last)
        {
            region.Clear(offset, count);
            return;
        }
        int head = (first << Region.PageShift) - offset;
        int tail = end - (last << Region.PageShift);
        region.Clear(offset, head);
        region.GiveUp(first, last - first);
        if (tail > 0)
        {
            region.Clear(end - tail, tail);
        }
    }

    /// <summary>The bytes from an offset on whose pages all are in use, or all are not, as far as one region or directory tells.</summary>
    private long RunOf(long offset, long length, out bool used)
    {
        long number = offset >> Region.Shift;
        Slot[] directory = _root;
        int shift = _rootShift;
        while (true)
        {
            long index = (number >> shift) & DirectoryMask;
            object? child = Volatile.Read(ref directory[index].Value);
            if (child is null)
            {
                used = false;
                long end = index + 1;
                while (end < directory.Length && Volatile.Read(ref directory[end].Value) is null)
                {
                    end++;
                }
                long run = ((number >> shift) - index + end) << shift;
                return run > (offset + length - 1) >> Region.Shift ? length : (run << Region.Shift) - offset;
            }
            if (shift == 0)
            {
                int within = (int)offset & (Region.Size - 1);
                return ((Region)child).RunOf(within, (int)Math.Min(Region.Size - within, length), out used);
            }
            directory = (Slot[])child;
            shift -= DirectoryBits;
        }
    }
}
