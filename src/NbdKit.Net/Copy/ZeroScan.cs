namespace NbdKit.Copy;

/// <summary>Finds blocks of zeroes in data.</summary>
internal static class ZeroScan
{
    /// <summary>Whether all bytes are zero; the framework compares a vector at a time.</summary>
    public static bool IsZero(ReadOnlySpan<byte> data) => !data.ContainsAnyExcept((byte)0);

    /// <summary>The length of the run of blocks of one kind that data begins with.</summary>
    /// <param name="data">At least one byte.</param>
    /// <param name="offset">Where the first byte lies on the disk: blocks are counted from the disk's begin.</param>
    /// <param name="block">The size of a block, a power of two. What is cut at either end of the data counts as a block.</param>
    /// <param name="isZero">Whether it is a run of zeroes.</param>
    public static int Run(ReadOnlySpan<byte> data, long offset, int block, out bool isZero)
    {
        int at = First(data.Length, offset, block);
        isZero = IsZero(data[..at]);
        while (at < data.Length)
        {
            int count = Math.Min(block, data.Length - at);
            if (IsZero(data.Slice(at, count)) != isZero)
            {
                break;
            }
            at += count;
        }
        return at;
    }

    private static int First(int length, long offset, int block)
        => (int)Math.Min(length, block - (offset & (block - 1)));
}
