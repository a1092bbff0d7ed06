using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Random requests on filters that change bytes or where they lie, against an array of what clients should see.</summary>
public class ByteChangingFilterTests
{
    private const int Size = 40_000;

    private static IEnumerable<TestCaseData> Filters()
    {
        foreach (int bits in new[] { 8, 16, 32, 64 })
        {
            yield return new TestCaseData(new SwabFilter { Bits = bits }, (Func<byte[], long, byte>)((below, at) => below[at ^ ((bits / 8) - 1)]), bits / 8)
                .SetArgDisplayNames($"swab {bits}");
        }
        for (int length = 1; length <= 8; length++)
        {
            byte[] key = TestData.Random(length, length);
            yield return new TestCaseData(new XorFilter { Key = key }, (Func<byte[], long, byte>)((below, at) => (byte)(below[at] ^ key[at % key.Length])), 1)
                .SetArgDisplayNames($"xor {length}");
        }
        // Two ranges exchanged, one that another hides a part of, and the rest as it is.
        MapRange[] ranges = [new(0, 511, 8192), new(8192, 8703, 0), new(300, 9000, 20_300), new(20_512, 29_000, 512)];
        yield return new TestCaseData(new MapFilter { Ranges = ranges }, (Func<byte[], long, byte>)((below, at) => below[Below(ranges, at)]), 1)
            .SetArgDisplayNames("map");
    }

    private static long Below(MapRange[] ranges, long at)
    {
        int i = Array.FindIndex(ranges, range => range.Start <= at && at <= range.End);
        return i < 0 ? at : ranges[i].Destination + at - ranges[i].Start;
    }

    [TestCaseSource(nameof(Filters))]
    public async Task Whatever_is_read_is_what_lies_below_after_the_change(INbdFilter filter, Func<byte[], long, byte> seen, int unit)
    {
        const int Seed = 48;
        var random = new Random(Seed);
        byte[] content = TestData.Random(Size, Seed);
        content.AsSpan(12_345, 9000).Clear();
        var plugin = new ModelPlugin(content, ModelPlugin.Everything, new Random(Seed));
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 400; i++)
        {
            long offset = random.Next(Size / unit) * unit;
            int length = (int)Math.Min(Size - offset, random.Next(1, random.Next(2) == 0 ? 40 : 6000) * unit);
            byte[] data = TestData.Random(length, i);
            switch (random.Next(5))
            {
                case 0:
                    byte[] mine = [.. data];
                    await disk.WriteAsync(data, offset, RequestFlags.None, default);
                    Assert.That(data, Is.EqualTo(mine), "the data of the caller");
                    // Where two ranges lie over each other, the one written last counts.
                    Assert.That(await ReadAsync(disk, offset, length), filter is MapFilter ? Has.Length.EqualTo(length) : Is.EqualTo(data));
                    break;
                case 1:
                    await disk.ZeroAsync(offset, length, RequestFlags.None, default);
                    Assert.That(await ReadAsync(disk, offset, length), Is.All.Zero);
                    break;
                case 2 when filter is XorFilter:
                    await disk.TrimAsync(offset, length, RequestFlags.None, default);
                    Assert.That(await ReadAsync(disk, offset, length), Is.All.Zero);
                    break;
                case 3:
                    byte[] now = await ReadAsync(disk, offset, length);
                    foreach (Extent extent in await disk.ExtentsFullAsync(offset, length, ExtentList.BaseAllocation, default))
                    {
                        if ((extent.Status & ExtentStatus.Zero) != 0)
                        {
                            Assert.That(now.AsSpan((int)(extent.Offset - offset), (int)extent.Length).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
                        }
                    }
                    break;
                default:
                    byte[] expected = [.. Enumerable.Range(0, length).Select(j => seen(plugin.Data, offset + j))];
                    Assert.That(await ReadAsync(disk, offset, length), Is.EqualTo(expected), $"seed {Seed}, operation {i}");
                    break;
            }
        }
        Assert.That(plugin.Offence, Is.Null);
    }

    private static async Task<byte[]> ReadAsync(NextContext disk, long offset, int length)
    {
        byte[] buffer = new byte[length];
        await disk.ReadAsync(buffer, offset, default);
        return buffer;
    }
}
