namespace NbdKit.Buffers;

/// <summary>A plugin's handle that can lend the memory that its disk lies in.</summary>
internal interface ILender
{
    /// <summary>Lends a range, at once or not at all; of a file only if <see cref="Loan.TakesFile"/> says so.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="loan">Receives the pieces; what it holds after a refusal is ignored.</param>
    /// <param name="forWrite">
    /// Whether the memory will be filled with the payload of a write, which is complete with that.
    /// </param>
    bool TryLend(long offset, int length, Loan loan, bool forWrite);

    /// <summary>
    /// Lets the processor fetch the first bytes of a range that is about to be read. A hint, and the offset may be any.
    /// </summary>
    void Prefetch(long offset)
    {
    }
}
