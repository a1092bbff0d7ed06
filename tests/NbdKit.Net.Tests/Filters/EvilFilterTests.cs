using System.Numerics;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class EvilFilterTests
{
    private const int Size = 2 << 20;

    [Test]
    public async Task With_a_probability_of_zero_nothing_is_changed_and_with_one_every_bit([Values] EvilMode mode)
    {
        byte[] content = TestData.Random(Size);
        Assert.That(await ReadAsync(new EvilFilter { Mode = mode, Probability = 0 }, content), Is.EqualTo(content));
        byte[] once = await ReadAsync(new EvilFilter { Mode = mode, Probability = 1, Seed = 1 }, content);
        byte[] inverted = [.. content.Select(b => (byte)~b)];
        if (mode == EvilMode.CosmicRays)
        {
            Assert.That(once, Is.EqualTo(inverted));
        }
        else
        {
            // Stuck: the content makes no difference.
            Assert.That(await ReadAsync(new EvilFilter { Mode = mode, Probability = 1, Seed = 1 }, inverted), Is.EqualTo(once));
        }
    }

    [TestCase(1e-4, 1)]
    [TestCase(1e-3, 1)]
    [TestCase(0.3, 1)]
    [TestCase(1e-2, 16)]
    [TestCase(0.5, 4)]
    public async Task As_many_bits_are_bad_as_the_probability_says(double probability, int burst)
    {
        byte[] content = TestData.Random(Size);
        double expected = probability * Size * 8;
        foreach (EvilMode mode in Enum.GetValues<EvilMode>())
        {
            var filter = new EvilFilter { Mode = mode, Probability = probability, Burst = burst, Seed = 5 };
            byte[] read = await ReadAsync(filter, content);
            // A stuck bit shows where the content is the other one: half the time.
            double bad = Differences(read, content) * (mode == EvilMode.CosmicRays ? 1 : 2);
            Assert.That(bad, Is.EqualTo(expected).Within(expected * 0.1 + 3 * Math.Sqrt(expected * burst)), mode.ToString());
        }
    }

    [Test]
    public async Task Bad_bits_come_in_bursts_if_asked_for()
    {
        byte[] read = await ReadAsync(
            new EvilFilter { Mode = EvilMode.CosmicRays, Probability = 1e-3, Burst = 24, Seed = 9 }, new byte[Size]);
        int bits = read.Sum(b => BitOperations.PopCount(b));
        int runs = 0;
        bool before = false;
        for (int i = 0; i < Size * 8; i++)
        {
            bool now = (read[i / 8] >> (i % 8) & 1) != 0;
            runs += now && !before ? 1 : 0;
            before = now;
        }
        Assert.That((double)bits / runs, Is.InRange(23, 26));
    }

    [TestCase(1e-4, 1, 1.0)]
    [TestCase(1e-2, 7, 1.0)]
    [TestCase(0.4, 100, 1.0)]
    public async Task Stuck_bits_are_the_same_however_they_are_read(double probability, int burst, double shows)
    {
        byte[] content = TestData.Random(Size);
        var filter = new EvilFilter { Probability = probability, Burst = burst, StuckProbability = shows, Seed = 3 };
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(content), filter);
        await using NextContext disk = await chain.OpenAsync();
        await using NextContext other = await chain.OpenAsync();
        byte[] whole = await TestData.ReadAsync(disk, 0, Size);
        Assert.That(whole, Is.Not.EqualTo(content));
        var random = new Random(17);
        for (int i = 0; i < 200; i++)
        {
            int offset = random.Next(Size);
            int length = random.Next(1, Math.Min(Size - offset, 100_000) + 1);
            byte[] part = await TestData.ReadAsync(i % 2 == 0 ? disk : other, offset, length);
            Assert.That(part.AsSpan().SequenceEqual(whole.AsSpan(offset, length)), $"{length} bytes at {offset}");
        }
        Assert.That(await ReadAsync(new EvilFilter { Probability = probability, Burst = burst, Seed = 4 }, content), Is.Not.EqualTo(whole));
        Assert.That(await ReadAsync(new EvilFilter { Probability = probability, Burst = burst, Seed = 3 }, content), Is.EqualTo(whole));
    }

    [Test]
    public async Task Stuck_bits_hold_at_the_end_of_the_largest_disk_there_can_be([Values(1, 1e-6, 1e-300)] double probability)
    {
        long start = long.MaxValue - 65_535;
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(new byte[65_535]) { Base = start }, new EvilFilter { Probability = probability, Burst = 3, Seed = 1 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] all = await TestData.ReadAsync(disk, start, 65_535);
        Assert.That(await TestData.ReadAsync(disk, start + 60_000, 5535), Is.EqualTo(all[60_000..]));
    }

    [Test]
    public async Task A_stuck_bit_is_either_high_or_low()
    {
        EvilFilter New() => new() { Probability = 1e-3, Seed = 8 };
        byte[] zeroes = await ReadAsync(New(), new byte[Size]);
        byte[] ones = await ReadAsync(New(), [.. Enumerable.Repeat((byte)0xFF, Size)]);
        int high = zeroes.Sum(b => BitOperations.PopCount(b));
        int low = ones.Sum(b => 8 - BitOperations.PopCount(b));
        Assert.That(high, Is.EqualTo(low).Within(high * 0.1));
        for (int i = 0; i < Size; i++)
        {
            Assert.That(zeroes[i] & ~ones[i], Is.Zero, "what is stuck high is not also stuck low");
        }
    }

    [Test]
    public async Task A_stuck_bit_shows_as_often_as_it_is_told_to()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(new byte[Size]), new EvilFilter { Probability = 1e-2, StuckProbability = 0.25, Seed = 8 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] always = await ReadAsync(new EvilFilter { Probability = 1e-2, Seed = 8 }, new byte[Size]);
        byte[] first = await TestData.ReadAsync(disk, 0, Size);
        byte[] second = await TestData.ReadAsync(disk, 0, Size);
        Assert.That(first, Is.Not.EqualTo(second));
        int all = Differences(always, new byte[Size]);
        foreach (byte[] read in new[] { first, second })
        {
            Assert.That(Differences(read, new byte[Size]), Is.EqualTo(all / 4).Within(all / 40));
            Assert.That(read.Zip(always).All(pair => (pair.First & ~pair.Second) == 0));
        }
    }

    [Test]
    public async Task Stuck_wires_are_at_the_same_place_of_every_request()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(new byte[Size]), new EvilFilter { Mode = EvilMode.StuckWires, Probability = 1e-3, Seed = 2 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] first = await TestData.ReadAsync(disk, 0, 65_536);
        Assert.That(first, Is.Not.EqualTo(new byte[65_536]));
        Assert.That(await TestData.ReadAsync(disk, 123_457, 65_536), Is.EqualTo(first));
        Assert.That(await TestData.ReadAsync(disk, 1, 4096), Is.EqualTo(first[..4096]));
    }

    [Test]
    public async Task Cosmic_rays_hit_other_bits_each_time_and_the_same_again_with_the_same_seed()
    {
        async Task<(byte[], byte[])> TwoAsync(int? seed)
        {
            await using NbdBackend chain = NbdBackend.Compose(
                new ModelPlugin(new byte[Size]), new EvilFilter { Mode = EvilMode.CosmicRays, Probability = 1e-3, Seed = seed });
            await using NextContext disk = await chain.OpenAsync();
            return (await TestData.ReadAsync(disk, 0, 65_536), await TestData.ReadAsync(disk, 0, 65_536));
        }

        (byte[] first, byte[] second) = await TwoAsync(1);
        Assert.That(first, Is.Not.EqualTo(second));
        Assert.That(await TwoAsync(1), Is.EqualTo((first, second)));
        Assert.That((await TwoAsync(null)).Item1, Is.Not.EqualTo(first));
    }

    [Test]
    public async Task Writes_arrive_intact_and_holes_stay_holes()
    {
        var plugin = new ModelPlugin(new byte[Size], ModelPlugin.Everything with { CanReadSparse = Support.Native });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new EvilFilter { Mode = EvilMode.CosmicRays, Probability = 1 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] data = TestData.Random(65_536);
        await disk.WriteAsync(data, 0, RequestFlags.None, default);
        Assert.That(plugin.Data[..65_536], Is.EqualTo(data));
        byte[] buffer = new byte[Size];
        var extents = new ExtentList(0, Size);
        await disk.ReadSparseAsync(buffer, 0, extents, default);
        Assert.That(extents.Where(e => (e.Status & ExtentStatus.Zero) != 0).Sum(e => e.Length), Is.InRange(Size - 65_536 - 4096, Size - 65_536));
        Assert.That(buffer[..65_536], Is.EqualTo(data.Select(b => (byte)~b)));
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new EvilFilter { Mode = (EvilMode)3 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EvilFilter { Probability = 1.1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EvilFilter { Probability = double.NaN }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EvilFilter { StuckProbability = -0.1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EvilFilter { Burst = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static async Task<byte[]> ReadAsync(EvilFilter filter, byte[] content)
    {
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(content) { Yields = true }, filter);
        await using NextContext disk = await chain.OpenAsync();
        return await TestData.ReadAsync(disk, 0, content.Length);
    }

    private static int Differences(byte[] one, byte[] two)
    {
        int count = 0;
        for (int i = 0; i < one.Length; i++)
        {
            count += BitOperations.PopCount((uint)(one[i] ^ two[i]));
        }
        return count;
    }
}
