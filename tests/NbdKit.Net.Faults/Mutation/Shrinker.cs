using System.Diagnostics;

namespace NbdKit.Faults.Mutation;

/// <summary>Makes a stream that fails as short as it still fails.</summary>
internal static class Shrinker
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    /// <summary>Leaves out pieces, and parts of pieces, as long as the rest fails.</summary>
    public static async Task<MutantStream> ShrinkAsync(MutantStream stream, bool joins, Func<MutantStream, Task<bool>> failsAsync)
    {
        var watch = Stopwatch.StartNew();
        if (joins && stream with { Chunks = [stream.Joined()] } is var joined && await failsAsync(joined))
        {
            stream = joined;
        }
        bool better = true;
        while (better && watch.Elapsed < Limit)
        {
            better = false;
            for (int i = 0; i < stream.Chunks.Length && watch.Elapsed < Limit; i++)
            {
                for (int size = stream.Chunks[i].Length; size > 0 && watch.Elapsed < Limit; size /= 2)
                {
                    for (int at = 0; at + size <= stream.Chunks[i].Length && watch.Elapsed < Limit;)
                    {
                        byte[] rest = [.. stream.Chunks[i][..at], .. stream.Chunks[i][(at + size)..]];
                        MutantStream shorter = stream with { Chunks = [.. stream.Chunks[..i], rest, .. stream.Chunks[(i + 1)..]] };
                        if (await failsAsync(shorter))
                        {
                            stream = shorter;
                            better = true;
                        }
                        else
                        {
                            at += size;
                        }
                    }
                }
            }
        }
        return joins ? stream with { Chunks = [.. stream.Chunks.Where(chunk => chunk.Length > 0)] } : stream;
    }
}
