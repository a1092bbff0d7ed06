namespace NbdKit.Buffers;

/// <summary>A filter's handle that leaves the content of requests alone, so that memory may be lent through it.</summary>
internal interface ILendingFilter
{
    /// <summary>Lends a range of the layer below, at once or not at all; see <see cref="ILender"/>.</summary>
    bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite);

    /// <summary>As <see cref="ILender.Prefetch"/>, for the layer below.</summary>
    void Prefetch(NextContext next, long offset)
    {
    }
}
