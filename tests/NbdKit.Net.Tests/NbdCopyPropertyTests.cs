using System.Security.Cryptography;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Random disks, capabilities, block sizes and options: what arrives is what the source holds, and no rule is broken.</summary>
public sealed class NbdCopyPropertyTests
{
    [Test]
    public async Task What_arrives_is_what_the_source_holds([Range(1, 250)] int seed)
    {
        var random = new Random(seed);
        int size = random.Next(3) == 0 ? random.Next(20_000) : random.Next(300_000);
        byte[] content = SparseData.Random(size, random);
        byte[] before = new byte[size + (random.Next(2) == 0 ? 0 : random.Next(70_000))];
        NbdCopyOptions options = Options(random);
        if (!options.DestinationIsZero)
        {
            random.NextBytes(before);
        }
        var from = new ModelPlugin(content, Info(random), new Random(seed)) { Yields = random.Next(2) == 0 };
        var to = new ModelPlugin(before, Info(random), new Random(seed)) { Yields = random.Next(2) == 0 };
        await using CopyDisk source = await CopyDisk.OpenAsync(from, random.Next(1, 4));
        await using CopyDisk destination = await CopyDisk.OpenAsync(to, random.Next(1, 4));

        NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination, options).Soon();

        using (Assert.EnterMultipleScope())
        {
            string where = $"seed {seed}: {options}";
            Assert.That(to.Data.AsSpan(0, size).SequenceEqual(content), where);
            Assert.That(to.Data.AsSpan(size).SequenceEqual(before.AsSpan(size)), "beyond the source, " + where);
            Assert.That(from.Offence, Is.Null, where);
            Assert.That(to.Offence, Is.Null, where);
            Assert.That(result.Size, Is.EqualTo(size), where);
            if (options.ComputeHash)
            {
                Assert.That(result.Sha256!.Value.Span.SequenceEqual(SHA256.HashData(content)), where);
            }
            if (options.Flush && to.Info.CanFlush)
            {
                Assert.That(to.Stable.AsSpan(0, size).SequenceEqual(content), "on stable storage, " + where);
            }
        }
    }

    [Test]
    public async Task Through_filters_that_delay_and_cut_it_is_the_same([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        byte[] content = SparseData.Random(100_000 + random.Next(100_000), random);
        int block = 1 << random.Next(9, 14);
        await using CopyDisk source = await CopyDisk.OpenAsync(
            content, new DelayFilter { Read = TimeSpan.FromTicks(random.Next(3)) });
        // The filter serves whole blocks only.
        byte[] before = TestData.Random((content.Length + block) / block * block, seed);
        await using CopyDisk destination = await CopyDisk.OpenAsync(before, new BlockSizeFilter { MinBlock = block });

        await NbdCopy.CopyAsync(
            source.Source, destination.Destination, new NbdCopyOptions { RequestSize = 8192, Verify = true }).Soon();

        Assert.That(
            destination.Plugin.Data, Is.EqualTo((byte[])[.. content, .. before[content.Length..]]), $"seed {seed}");
    }

    private static NbdCopyOptions Options(Random random) => new()
    {
        RequestSize = 4096 << random.Next(5),
        MaxRequestsInFlight = random.Next(1, 12),
        MaxBytesInFlight = 1 << random.Next(12, 22),
        UseExtents = random.Next(3) != 0,
        SparseSize = random.Next(4) == 0 ? 0 : 512 << random.Next(7),
        DestinationIsZero = random.Next(3) == 0,
        Allocated = random.Next(3) == 0,
        Flush = random.Next(3) != 0,
        ComputeHash = random.Next(2) == 0,
        Verify = random.Next(2) == 0,
    };

    private static NbdExportInfo Info(Random random)
    {
        bool canFlush = random.Next(3) != 0;
        Support canZero = (Support)random.Next(3);
        int minimum = 1 << random.Next(14);
        int preferred = Math.Max(minimum, 512 << random.Next(4));
        NbdExportInfo info = ModelPlugin.Everything with
        {
            CanFlush = canFlush,
            CanFua = canFlush ? (Support)random.Next(3) : Support.None,
            CanTrim = random.Next(2) == 0,
            CanZero = canZero,
            CanFastZero = canZero != Support.None && random.Next(2) == 0,
            CanExtents = random.Next(3) != 0,
        };
        return random.Next(3) == 0
            ? info
            : info with { BlockSize = new BlockSize(minimum, preferred, (long)preferred << random.Next(3)) };
    }
}
