using NbdKit.Layers;

namespace NbdKit.Tests.Testing;

/// <summary>
/// Zeroes or trims a range of a large disk, and looks at places that a length cut short, rounded, or wrapped in 31 or 32 bits
/// would miss: all of the range must be changed and nothing beside it, unless the request fails.
/// </summary>
internal sealed class CompletenessCheck(NextContext disk)
{
    private const int Window = 64;

    private static readonly long[] Steps = [0, 512, 4096, 1 << 16, 1 << 20, 1 << 25, 1 << 26, 1L << 31, uint.MaxValue, 1L << 32, 1L << 33];

    /// <summary>Offsets that deserve a look, for a range: around its ends, and around powers of two from its start and from the disk's.</summary>
    public static IReadOnlyList<long> Places(long offset, long length, long size)
    {
        var places = new SortedSet<long>();
        foreach (long step in Steps)
        {
            foreach (long at in new[] { step, offset + step, offset - step, offset + length - step, offset + length + step, size - step })
            {
                places.Add(at - Window);
                places.Add(at);
            }
        }
        var random = new Random(1);
        for (int i = 0; i < 200; i++)
        {
            places.Add(random.NextInt64(size));
        }
        return [.. places.Where(at => at >= 0 && at + Window <= size)];
    }

    /// <summary>Zeroes the range.</summary>
    public Task ZeroAsync(long offset, long length, RequestFlags flags = RequestFlags.None)
        => RunAsync(offset, length, isZero: true, () => disk.ZeroAsync(offset, length, flags, default));

    /// <summary>Trims the range.</summary>
    public Task TrimAsync(long offset, long length)
        => RunAsync(offset, length, isZero: false, () => disk.TrimAsync(offset, length, RequestFlags.None, default));

    private async Task RunAsync(long offset, long length, bool isZero, Func<ValueTask> request)
    {
        IReadOnlyList<long> places = Places(offset, length, disk.Info.Size);
        List<byte[]> before = await ReadAsync(places);
        await request();
        List<byte[]> after = await ReadAsync(places);
        int changed = 0;
        for (int i = 0; i < places.Count; i++)
        {
            for (int at = 0; at < Window; at++)
            {
                long place = places[i] + at;
                bool inside = place >= offset && place < offset + length;
                byte expected = inside && isZero ? (byte)0 : before[i][at];
                changed += after[i][at] == before[i][at] ? 0 : 1;
                if (after[i][at] != expected && !(inside && !isZero && after[i][at] == 0))
                {
                    throw new AssertionException(
                        $"{(isZero ? "zero" : "trim")} of {length} bytes at {offset}: byte {place} ({(inside ? "inside" : "outside")}) is {after[i][at]}, was {before[i][at]}");
                }
            }
        }
        if (isZero)
        {
            Assert.That(changed, Is.Positive, "nothing was changed: the check checks nothing");
        }
    }

    private async Task<List<byte[]>> ReadAsync(IReadOnlyList<long> places)
    {
        var windows = new List<byte[]>();
        long minimum = Math.Max(1, (long)disk.Info.BlockSize.Minimum);
        foreach (long place in places)
        {
            long start = place / minimum * minimum;
            long end = Math.Min(disk.Info.Size, (place + Window + minimum - 1) / minimum * minimum);
            byte[] bytes = new byte[end - start];
            await disk.ReadInPiecesAsync(bytes, start, default);
            windows.Add(bytes.AsSpan((int)(place - start), Window).ToArray());
        }
        return windows;
    }
}
