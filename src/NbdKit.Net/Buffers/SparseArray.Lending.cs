namespace NbdKit.Buffers;

// Lending pages instead of copying them.
internal sealed partial class SparseArray
{
    // Stands for every page that does not exist; never written to.
    private static readonly byte[] ZeroPage = GC.AllocateArray<byte>(PageSize, pinned: true);

    /// <summary>
    /// Lends the pages of a range. For a write all of them must exist: one that is made now would have to be cleared first, and
    /// copying into it costs no more.
    /// </summary>
    public bool TryLend(long offset, int length, Loan loan, bool forWrite)
    {
        while (length > 0)
        {
            int within = (int)offset & PageMask;
            int count = Math.Min(PageSize - within, length);
            byte[]? page = Find(offset >> PageShift);
            if (page is null && forWrite)
            {
                return false;
            }
            loan.Add(page ?? ZeroPage, within, count);
            offset += count;
            length -= count;
        }
        return true;
    }
}
