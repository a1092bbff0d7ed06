using NbdKit.Buffers;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>The memory plugin that keeps its pages compressed.</summary>
public sealed class CompressingMemoryTests
{
    [Test]
    public async Task Random_histories_behave_like_an_array_of_bytes([Values(1, 2, 3, 4)] int seed)
    {
        var random = new Random(seed);
        int size = random.Next(1, 2_000_000);
        await using NbdBackend chain = Compose(size);
        await using NextContext disk = await chain.OpenAsync();
        await new ChainHistory(disk, new byte[size], random, $"seed {seed}").RunAsync(300);
    }

    [Test]
    public async Task More_pages_than_stay_uncompressed_keep_their_content()
    {
        const int Size = 24 << 20;
        await using NbdBackend chain = Compose(Size);
        await using NextContext disk = await chain.OpenAsync();
        byte[] content = TestData.Random(Size, 1);
        // Every other page gets much smaller, the others do not.
        for (int at = 0; at < Size; at += 65_536)
        {
            content.AsSpan(at, 32_768).Fill((byte)(at >> 16));
        }
        await Parallel.ForAsync(0, 24, async (i, token) => await disk.WriteAsync(content.AsMemory(i << 20, 1 << 20), i << 20, RequestFlags.None, token));
        await Parallel.ForAsync(0, 48, async (i, token) =>
        {
            byte[] read = new byte[1 << 20];
            await disk.ReadAsync(read, (i % 24) << 20, token);
            Assert.That(read.AsSpan().SequenceEqual(content.AsSpan((i % 24) << 20, 1 << 20)), $"{i % 24} MiB");
        });
    }

    [Test]
    public void Pages_that_were_not_used_lately_take_less()
    {
        var array = new CompressedArray(1L << 40);
        byte[] text = new byte[64 << 20];
        for (int i = 0; i < text.Length; i++)
        {
            text[i] = (byte)("the quick brown fox "[i % 20] + (i >> 20));
        }
        array.Write(1 << 30, text);
        Assert.That(array.Bytes, Is.LessThan(12 << 20));
        byte[] read = new byte[text.Length];
        array.Read(1 << 30, read);
        Assert.That(read.AsSpan().SequenceEqual(text));
        Assert.That(array.Bytes, Is.LessThan(12 << 20));
        array.Zero(0, array.Size, keepPages: false);
        Assert.That(array.Bytes, Is.Zero);
    }

    [Test]
    public void Extents_are_those_of_the_pages_wherever_these_are([Values(1, 2, 3)] int seed)
    {
        const long Size = 1L << 45;
        const int Page = 32_768;
        var random = new Random(seed);
        var array = new CompressedArray(Size);
        var pages = new SortedSet<long>();
        for (int i = 0; i < 300; i++)
        {
            long first = random.NextInt64(random.Next(2) == 0 ? Size / Page : 5000);
            for (int run = random.Next(1, 4); run > 0 && first < Size / Page; run--, first++)
            {
                array.Write(first * Page, [1]);
                pages.Add(first);
            }
        }
        for (int i = 0; i < 300; i++)
        {
            long offset = random.Next(2) == 0 ? random.NextInt64(Size) : random.NextInt64(5000L * Page);
            long length = random.Next(2) == 0 ? random.NextInt64(1, Size - offset + 1) : random.NextInt64(1, Math.Min(100L * Page, Size - offset + 1));
            bool one = random.Next(2) == 0;
            var extents = new ExtentList(offset, offset + length, maximumCount: int.MaxValue);
            array.GetExtents(offset, length, one, extents);
            Assert.That(extents.Count, Is.Positive);
            long at = offset;
            foreach (Extent extent in extents)
            {
                Assert.That(extent.Offset, Is.EqualTo(at), $"seed {seed}");
                (long from, long to) = (extent.Offset / Page, (extent.End - 1) / Page);
                int there = pages.GetViewBetween(from, to).Count;
                Assert.That(there, Is.EqualTo(extent.Status == ExtentStatus.Data ? to - from + 1 : 0), $"seed {seed}: {extent}");
                at = extent.End;
            }
            // However far away the next page is, a hole is one extent up to there, or to the end.
            Extent last = extents[^1];
            if (extents.Count == 1 && last.Status != ExtentStatus.Data)
            {
                SortedSet<long> after = pages.GetViewBetween(offset / Page, (offset + length - 1) / Page);
                Assert.That(last.End, Is.EqualTo(after.Count == 0 ? offset + length : after.Min * Page), $"seed {seed}");
            }
        }
    }

    [Test]
    public async Task The_largest_disk_has_extents_and_can_be_zeroed_at_once()
    {
        await using NbdBackend chain = Compose(long.MaxValue);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2 }, long.MaxValue - 2, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 1 }, 40_000, RequestFlags.None, default);
        ExtentList extents = await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default);
        const ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 32_768, Hole),
            new Extent(32_768, 32_768, ExtentStatus.Data),
            new Extent(65_536, long.MaxValue - 32_767 - 65_536, Hole),
            new Extent(long.MaxValue - 32_767, 32_767, ExtentStatus.Data),
        }));
        await disk.ZeroAsync(0, long.MaxValue, RequestFlags.None, default);
        Assert.That((await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default)).Count, Is.EqualTo(4));
        await disk.TrimAsync(1, long.MaxValue - 1, RequestFlags.None, default);
        extents = await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, long.MaxValue, Hole) }));
        Assert.That(await TestData.ReadAsync(disk, 40_000, 1), Is.EqualTo(new byte[1]));
    }

    [TestCase("sparse", null)]
    [TestCase("zstd", null)]
    [TestCase("malloc", "neither taken ahead nor locked")]
    [TestCase("malloc,mlock=true", "neither taken ahead nor locked")]
    [TestCase("slab", "is not one of")]
    public void The_catalogue_takes_the_allocators_that_there_are(string allocator, string? fault)
    {
        NbdBackend Made() => new NbdCatalogue().Compose("memory", [], [new("", "1M"), new("allocator", allocator)]);
        if (fault is null)
        {
            Assert.That(Made().Name, Is.EqualTo("memory"));
        }
        else
        {
            Assert.That(Made, Throws.ArgumentException.With.Message.Contains(fault));
        }
    }

    [Test]
    public async Task A_real_client_copies_to_and_from_it()
    {
        Peer.Require("nbdcopy");
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random((20 << 20) + 5, 3));
        await using InteropServer server = await InteropServer.StartAsync(Compose((20 << 20) + 5));
        await Peer.OutputAsync("nbdcopy", "--flush", source, server.Uri);
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], source);
    }

    private static NbdBackend Compose(long size)
        => NbdBackend.Compose(new MemoryPlugin { Size = size, Allocator = MemoryAllocator.Compressing });
}
