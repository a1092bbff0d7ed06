using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class SparseRandomPluginTests
{
    private const int Size = (4 << 20) + 777;

    [Test]
    public async Task Reads_extents_and_checks_of_writes_agree([Values] bool content, [Values(0, 10, 60, 100)] int percent)
    {
        await using NbdBackend chain = Sparse(7, percent, content);
        await using NextContext disk = await chain.OpenAsync();
        byte[] all = await TestData.ReadAsync(disk, 0, Size);
        var random = new Random(5);
        for (int i = 0; i < 200; i++)
        {
            int offset = random.Next(Size);
            int length = random.Next(1, Math.Min(20_000, Size - offset + 1));
            byte[] part = all[offset..(offset + length)];
            Assert.That((await TestData.ReadAsync(disk, offset, length)).AsSpan().SequenceEqual(part), $"{offset} {length}");
            await disk.WriteAsync(part, offset, RequestFlags.None, default);
            part[random.Next(length)] ^= 1;
            Assert.That(
                TestData.Failure(() => disk.WriteAsync(part, offset, RequestFlags.None, default).AsTask()).Error,
                Is.EqualTo(NbdError.IoError));
        }
        ExtentList extents = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, default);
        long data = 0;
        foreach (Extent extent in extents)
        {
            var (offset, length) = ((int)extent.Offset, (int)Math.Min(extent.Length, Size - extent.Offset));
            if (extent.Status == ExtentStatus.Data)
            {
                data += length;
                // A block of random content may be zero by chance, but not within a run's first bytes of this seed.
                Assert.That(all.AsSpan(offset, length).ContainsAnyExcept((byte)0), $"{offset}");
                Assert.That(
                    TestData.Failure(() => disk.ZeroAsync(offset + length - 1, 1, RequestFlags.None, default).AsTask()).Error,
                    Is.EqualTo(NbdError.IoError));
            }
            else
            {
                Assert.That(all.AsSpan(offset, length).ContainsAnyExcept((byte)0), Is.False, $"{offset}");
                await disk.ZeroAsync(offset, length, RequestFlags.None, default);
                await disk.TrimAsync(offset, length, RequestFlags.None, default);
            }
        }
        Assert.That(data * 100.0 / Size, Is.EqualTo(percent).Within(percent is 0 or 100 ? 0 : 20));
    }

    [Test]
    public async Task Blocks_made_several_at_a_time_are_those_made_one_by_one()
    {
        const long Start = (1L << 40) + 4096;
        await using NbdBackend chain = NbdBackend.Compose(
            new SparseRandomPlugin { Size = 1L << 41, Seed = uint.MaxValue, Percent = 100, RandomContent = true });
        await using NextContext disk = await chain.OpenAsync();
        byte[] expected = new byte[40 * 4096];
        for (int block = 0; block < 40; block++)
        {
            var random = new Xoshiro(uint.MaxValue + (ulong)(Start + (block * 4096)));
            foreach (ref byte b in expected.AsSpan(block * 4096, 4096))
            {
                b = (byte)random.Next();
            }
        }
        foreach ((int from, int length) in new[] { (0, 40 * 4096), (0, 16_384), (0, 16_383), (4096, 20_000), (1, 50_000), (4095, 16_385), (5, 65_536), (5, 65_537) })
        {
            Assert.That(
                (await TestData.ReadAsync(disk, Start + from, length)).AsSpan().SequenceEqual(expected.AsSpan(from, length)), $"{from} {length}");
        }
    }

    [Test]
    public async Task A_zero_that_leaves_its_hole_is_refused()
    {
        await using NbdBackend chain = Sparse(7, 50, content: false);
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, default);
        Extent hole = extents.First(e => e.Status != ExtentStatus.Data && e.Offset + e.Length < Size);
        Assert.That(
            TestData.Failure(() => disk.ZeroAsync(hole.Offset, hole.Length + 1, RequestFlags.None, default).AsTask()).Error,
            Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public async Task The_catalogue_makes_it_and_names_mistakes()
    {
        var catalogue = new NbdCatalogue();
        await using NbdBackend chain = catalogue.Compose(
            "sparse-random", [], [new("", "1M"), new("percent", "100"), new("runlength", "64k"), new("random-content", "yes")]);
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, 1 << 20, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, 1 << 20, ExtentStatus.Data) }));
        foreach ((string key, string value) in new[] { ("percent", "101"), ("percent", "x"), ("runlength", "0") })
        {
            Assert.That(
                () => catalogue.Compose("sparse-random", [], [new("size", "1M"), new(key, value)]),
                Throws.ArgumentException.With.Message.Contains($"{key}={value}"));
        }
    }

    [Test]
    public async Task A_disk_that_would_take_minutes_is_refused()
    {
        await using NbdBackend chain = NbdBackend.Compose(new SparseRandomPlugin { Size = (1L << 48) + 1 });
        Assert.That(
            async () => await chain.OpenAsync(), Throws.Exception.With.Message.Contains("256 TiB"));
    }

    private static NbdBackend Sparse(uint seed, int percent, bool content) => NbdBackend.Compose(
        new SparseRandomPlugin { Size = Size, Seed = seed, Percent = percent, RunLength = 20_000, RandomContent = content });
}
