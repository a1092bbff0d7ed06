using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class RandomPluginTests
{
    private const int Size = 300_000;

    [Test]
    public async Task Every_range_reads_the_same_whatever_the_request()
    {
        await using NbdBackend chain = Dense(1);
        await using NextContext disk = await chain.OpenAsync();
        byte[] all = await TestData.ReadAsync(disk, 0, Size);
        var random = new Random(5);
        for (int i = 0; i < 200; i++)
        {
            int offset = random.Next(Size);
            int length = random.Next(1, Math.Min(5000, Size - offset + 1));
            Assert.That(
                (await TestData.ReadAsync(disk, offset, length)).AsSpan().SequenceEqual(all.AsSpan(offset, length)), $"{offset} {length}");
        }
        Assert.That(all.Distinct().Count(), Is.EqualTo(256));
    }

    [Test]
    public async Task Bytes_made_many_at_a_time_are_those_made_one_by_one()
    {
        // Seed and offset may wrap around, and large requests are made elsewhere.
        foreach ((uint seed, long start) in new[] { (0u, 0L), (1u, 3L), (uint.MaxValue, 777L), (uint.MaxValue, long.MaxValue - Size), (123_456_789u, 1L << 40) })
        {
            await using NbdBackend chain = NbdBackend.Compose(new RandomPlugin { Size = long.MaxValue, Seed = seed });
            await using NextContext disk = await chain.OpenAsync();
            byte[] expected = new byte[Size];
            for (int i = 0; i < Size; i++)
            {
                var random = new Xoshiro(seed + (ulong)(start + i));
                random.Next();
                random.Next();
                expected[i] = (byte)random.Next();
            }
            foreach (int length in new[] { Size, 65_536, 65_537, 4096, 100, 33, 32, 31, 1 })
            {
                Assert.That(
                    (await TestData.ReadAsync(disk, start, length)).AsSpan().SequenceEqual(expected.AsSpan(0, length)), $"{seed} {start} {length}");
            }
        }
    }

    [Test]
    public async Task The_seed_makes_the_disk()
    {
        await using NbdBackend one = Dense(1);
        await using NbdBackend same = Dense(1);
        await using NbdBackend other = Dense(2);
        await using NextContext first = await one.OpenAsync();
        await using NextContext second = await same.OpenAsync();
        await using NextContext third = await other.OpenAsync();
        byte[] bytes = await TestData.ReadAsync(first, 0, 4096);
        Assert.That(await TestData.ReadAsync(second, 0, 4096), Is.EqualTo(bytes));
        Assert.That(await TestData.ReadAsync(third, 0, 4096), Is.Not.EqualTo(bytes));
    }

    [Test]
    public async Task A_write_must_be_what_is_there()
    {
        await using NbdBackend chain = Dense(3);
        await using NextContext disk = await chain.OpenAsync();
        byte[] all = await TestData.ReadAsync(disk, 0, Size);
        await disk.WriteAsync(all.AsMemory(7, Size - 7), 7, RequestFlags.Fua, default);
        all[100_000] ^= 1;
        Assert.That(
            TestData.Failure(() => disk.WriteAsync(all.AsMemory(7), 7, RequestFlags.None, default).AsTask()).Error,
            Is.EqualTo(NbdError.IoError));
        await disk.WriteAsync(all.AsMemory(100_001), 100_001, RequestFlags.None, default);
        Assert.That(
            TestData.Failure(() => disk.ZeroAsync(0, 1, RequestFlags.None, default).AsTask()).Error, Is.EqualTo(NbdError.IoError));
        Assert.That(
            TestData.Failure(() => disk.TrimAsync(0, 1, RequestFlags.None, default).AsTask()).Error, Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public async Task The_largest_disk_has_a_last_byte()
    {
        await using NbdBackend chain = NbdBackend.Compose(new RandomPlugin { Size = long.MaxValue, Seed = uint.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        byte[] end = await TestData.ReadAsync(disk, long.MaxValue - 100, 100);
        Assert.That(await TestData.ReadAsync(disk, long.MaxValue - 1, 1), Is.EqualTo(end[^1..]));
    }

    [TestCase("seed", "4294967296", "seed=4294967296")]
    [TestCase("seed", "-1", "seed=-1")]
    [TestCase("size", "x", "size=x")]
    public void Mistakes_are_named(string key, string value, string message)
    {
        KeyValuePair<string, string>[] size = key == "size" ? [] : [new("size", "1")];
        foreach (string plugin in new[] { "random", "sparse-random" })
        {
            Assert.That(
                () => new NbdCatalogue().Compose(plugin, [], [.. size, new(key, value)]),
                Throws.ArgumentException.With.Message.Contains(message));
        }
    }

    private static NbdBackend Dense(uint seed) => NbdBackend.Compose(new RandomPlugin { Size = Size, Seed = seed });
}
