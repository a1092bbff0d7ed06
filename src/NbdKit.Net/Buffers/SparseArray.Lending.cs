namespace NbdKit.Buffers;

// Lending pages instead of copying them.
internal sealed partial class SparseArray
{
    // Stands for every page that is not in use; never written to.
    private static readonly byte[] ZeroPage = GC.AllocateArray<byte>(PageSize, pinned: true);

    /// <summary>
    /// Lends the memory of a range. For a write all of its pages must be in use: one that is made now would have to be cleared
    /// first, and copying into it costs no more.
    /// </summary>
    public bool TryLend(long offset, int length, Loan loan, bool forWrite)
    {
        while (length > 0)
        {
            int within = (int)offset & (Region.Size - 1);
            int count = Math.Min(Region.Size - within, length);
            Region? region = Find(offset >> Region.Shift);
            nint address = region?.AddressOf(within, count) ?? 0;
            if (address != 0)
            {
                loan.Add(region!.MemoryOf(within, count), address);
            }
            else if (forWrite)
            {
                return false;
            }
            else
            {
                LendSparse(region, within, count, loan);
            }
            offset += count;
            length -= count;
        }
        return true;
    }

    /// <summary>Lets the processor fetch the bytes at an offset, if there are any.</summary>
    public void Prefetch(long offset)
    {
        if ((ulong)offset < (ulong)Size && Find(offset >> Region.Shift) is { } region)
        {
            region.Prefetch((int)offset & (Region.Size - 1));
        }
    }

    private static void LendSparse(Region? region, int within, int count, Loan loan)
    {
        while (count > 0)
        {
            bool used = false;
            int run = region?.RunOf(within, count, out used) ?? count;
            if (!used)
            {
                run = Math.Min(run, PageSize);
            }
            // Asked again: the pages may just have been given up, and then they hold nothing that may be seen.
            nint address = used ? region!.AddressOf(within, run) : 0;
            if (address != 0)
            {
                loan.Add(region!.MemoryOf(within, run), address);
            }
            else
            {
                run = Math.Min(run, PageSize);
                loan.Add(ZeroPage, 0, run);
            }
            within += run;
            count -= run;
        }
    }
}
