namespace NbdKit.Tests.Testing;

/// <summary>Content with runs of zeroes of all lengths.</summary>
internal static class SparseData
{
    /// <summary>Makes it.</summary>
    /// <param name="size">Number of bytes.</param>
    /// <param name="random">Where the runs are and what the rest holds.</param>
    /// <param name="longest">The longest run.</param>
    public static byte[] Random(int size, Random random, int longest = 40_000)
    {
        byte[] content = new byte[size];
        for (int at = 0; at < size;)
        {
            int run = Math.Min(size - at, 1 + random.Next(random.Next(2) == 0 ? longest : 2000));
            // Like the blocks of a file system, most begin and end at a multiple.
            if (random.Next(4) != 0)
            {
                run = Math.Min(size - at, (run + 4095) & -4096);
            }
            if (random.Next(2) == 0)
            {
                random.NextBytes(content.AsSpan(at, run));
            }
            at += run;
        }
        return content;
    }
}
