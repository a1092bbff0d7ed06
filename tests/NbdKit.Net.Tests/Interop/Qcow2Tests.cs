using System.Text.Json;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Images that qemu-img and qemu-io made, against what qemu-img makes of them.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class Qcow2Tests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private static NbdBackend Chain(string image, string? snapshot = null)
        => NbdBackend.Compose(
            new FilePlugin { Path = image },
            new Qcow2DecFilter { BackingDirectory = Path.GetDirectoryName(image), Snapshot = snapshot });

    private static Task CreateAsync(string image, string options, long size, string? backing = null, string format = "qcow2")
        => Peer.OutputAsync(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", .. options.Length > 0 ? ["-o", options] : Array.Empty<string>(),
                .. backing is null ? [] : new[] { "-b", backing, "-F", format }, image, $"{size}"]);

    /// <summary>Has qemu-io write, zero, discard and compress here and there.</summary>
    private static async Task WriteAsync(string image, Random random, long size, int cluster, int count, bool isNew = true)
    {
        var commands = new List<string>();
        // Only clusters that are not allocated yet can be compressed.
        foreach (int i in isNew ? Enumerable.Range(0, (int)(size / cluster) + 1).OrderBy(_ => random.Next()).Take(count / 4) : [])
        {
            long start = (long)i * cluster;
            commands.AddRange(["-c", $"write -c -P {random.Next(256)} {start} {Math.Min(cluster, size - start)}"]);
        }
        for (int i = 0; i < count; i++)
        {
            long offset = random.NextInt64(size / 512) * 512;
            long length = Math.Min(random.NextInt64(1, (cluster * 4L / 512) + 1) * 512, size - offset);
            string where = $"{offset} {length}";
            commands.AddRange(["-c", random.Next(6) switch
            {
                0 => $"write -z {where}",
                1 => $"write -z -u {where}",
                2 => $"discard {where}",
                _ => $"write -P {random.Next(256)} {where}",
            }]);
        }
        await Peer.OutputAsync("qemu-io", ["-f", "qcow2", .. commands, image]);
    }

    /// <summary>Compares every byte, and where data and holes are.</summary>
    private static async Task CompareAsync(string image, string? snapshot = null, bool exact = true)
    {
        string raw = image + ".raw";
        string state = image;
        if (snapshot is not null)
        {
            // With -l, qemu-img would give the snapshot the size that the disk has now.
            state = image + ".state";
            File.Copy(image, state, overwrite: true);
            await Peer.OutputAsync("qemu-img", "snapshot", "-q", "-a", snapshot, state);
        }
        await Peer.OutputAsync("qemu-img", "convert", "-f", "qcow2", "-O", "raw", state, raw);
        byte[] expected = await File.ReadAllBytesAsync(raw);
        await using NbdBackend chain = Chain(image, snapshot);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(expected.Length));
        Assert.That((await TestData.ReadAsync(disk, 0, expected.Length)).AsSpan().SequenceEqual(expected), "as a whole");
        var random = new Random(expected.Length);
        for (int i = 0; i < 50; i++)
        {
            int offset = random.Next(expected.Length);
            int length = random.Next(1, Math.Min(200_000, expected.Length - offset) + 1);
            var holes = new ExtentList(offset, offset + length, maximumCount: int.MaxValue);
            byte[] part = new byte[length];
            await disk.ReadSparseAsync(part, offset, holes, None);
            foreach (Extent hole in holes.Where(e => (e.Status & ExtentStatus.Zero) != 0))
            {
                part.AsSpan((int)(hole.Offset - offset), (int)hole.Length).Clear();
            }
            Assert.That(part.AsSpan().SequenceEqual(expected.AsSpan(offset, length)), $"{length} bytes at {offset}");
        }
        if (snapshot is null)
        {
            await CompareMapAsync(image, disk, exact);
        }
    }

    private static async Task CompareMapAsync(string image, NextContext disk, bool exact)
    {
        using JsonDocument map = JsonDocument.Parse(await Peer.OutputAsync("qemu-img", "map", "--output=json", "-f", "qcow2", image));
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, None);
        ExtentList depths = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.AllocationDepth, None);
        foreach (JsonElement range in map.RootElement.EnumerateArray())
        {
            (long start, long length) = (range.GetProperty("start").GetInt64(), range.GetProperty("length").GetInt64());
            bool isZero = range.GetProperty("zero").GetBoolean();
            foreach (Extent extent in Parts(extents, start, length))
            {
                bool isOurs = (extent.Status & ExtentStatus.Zero) != 0;
                Assert.That(exact ? isOurs == isZero : isZero || !isOurs, $"{range} {extent}");
                // Of a raw file, QEMU does not tell what is a hole from what is zeroes.
                bool isHole = (extent.Status & ExtentStatus.Hole) != 0;
                Assert.That(!isHole || isZero, $"{range} {extent}");
            }
            bool isPresent = range.GetProperty("present").GetBoolean();
            foreach (Extent extent in exact ? Parts(depths, start, length) : [])
            {
                int depth = isPresent ? range.GetProperty("depth").GetInt32() + 1 : 0;
                Assert.That((int)extent.Status, Is.EqualTo(depth), $"{range} {extent}");
            }
        }
    }

    private static IEnumerable<Extent> Parts(ExtentList extents, long start, long length)
        => extents.Where(e => e.Offset < start + length && e.End > start);

    [TestCase("", 65_536, 5_000_704)]
    [TestCase("compat=0.10", 65_536, 5_000_704)]
    [TestCase("cluster_size=512", 512, 600_064)]
    [TestCase("compat=0.10,cluster_size=512", 512, 600_064)]
    [TestCase("cluster_size=4096", 4096, 3_000_320)]
    [TestCase("cluster_size=1M", 1 << 20, 20_000_256)]
    [TestCase("cluster_size=2M", 2 << 20, 30_000_128)]
    [TestCase("extended_l2=on", 65_536, 5_000_704)]
    [TestCase("extended_l2=on,cluster_size=16K", 16_384, 3_000_320)]
    [TestCase("extended_l2=on,cluster_size=2M", 2 << 20, 30_000_128)]
    [TestCase("lazy_refcounts=on,refcount_bits=1", 65_536, 5_000_704)]
    [TestCase("refcount_bits=64", 65_536, 5_000_704)]
    public async Task Any_history_of_writes_reads_as_QEMU_reads_it(string options, int cluster, long size)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        size = size / 512 * 512;
        await CreateAsync(image, options, size);
        await WriteAsync(image, new Random(1), size, cluster, 60, !options.EndsWith("refcount_bits=1", StringComparison.Ordinal));
        await CompareAsync(image);
        // And the same once more, over what is there.
        await WriteAsync(image, new Random(2), size, cluster, 60, isNew: false);
        await CompareAsync(image);
    }

    [TestCase("preallocation=metadata")]
    [TestCase("preallocation=falloc")]
    [TestCase("preallocation=full")]
    public async Task Images_that_are_allocated_beforehand_are_read(string options)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        await CreateAsync(image, options, 4 << 20);
        await CompareAsync(image, exact: false);
        await WriteAsync(image, new Random(3), 4 << 20, 65_536, 20, isNew: false);
        await CompareAsync(image, exact: false);
    }

    [TestCase("cluster_size=512")]
    [TestCase("cluster_size=4K")]
    [TestCase("cluster_size=64K")]
    [TestCase("cluster_size=2M")]
    [TestCase("cluster_size=64K,compat=0.10")]
    [TestCase("cluster_size=64K,extended_l2=on")]
    public async Task Compressed_images_are_read(string options)
    {
        Peer.Require("qemu-img");
        using var folder = new ScratchDirectory();
        byte[] content = new byte[3_000_320];
        var random = new Random(4);
        for (int i = 0; i < 40; i++)
        {
            // Of all kinds: what cannot be compressed, what can a little, and zeroes.
            Span<byte> part = content.AsSpan(random.Next(content.Length - 100_000), random.Next(100_000));
            random.NextBytes(part);
            for (int j = 0; random.Next(2) == 0 && j < part.Length; j++)
            {
                part[j] &= 3;
            }
        }
        string raw = folder.Write("content", content);
        await Peer.OutputAsync("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, folder["image"]);
        await CompareAsync(folder["image"]);
        Assert.That(await File.ReadAllBytesAsync(folder["image.raw"]), Is.EqualTo(content));
    }

    [TestCase(2_000_384, 3_000_320, 4_000_256)]
    [TestCase(4_000_256, 3_000_320, 2_000_384)]
    [TestCase(3_000_320, 1_000_448, 3_000_320)]
    public async Task A_chain_of_backing_files_of_any_size_is_read(long baseSize, long middleSize, long topSize)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(folder["sub"]);
        folder.Write("sub/base", TestData.Random((int)baseSize / 512 * 512, 5));
        await CreateAsync(folder["sub/lower"], "cluster_size=4K", baseSize / 512 * 512, "base", "raw");
        await WriteAsync(folder["sub/lower"], new Random(5), baseSize, 4096, 30);
        await CreateAsync(folder["sub/middle"], "compat=0.10", middleSize / 512 * 512, folder["sub/lower"]);
        await WriteAsync(folder["sub/middle"], new Random(6), middleSize / 512 * 512, 65_536, 20);
        await CreateAsync(folder["upper"], "extended_l2=on", middleSize / 512 * 512, "sub/middle");
        await WriteAsync(folder["upper"], new Random(7), middleSize / 512 * 512, 65_536, 20);
        await CreateAsync(folder["top"], "cluster_size=512", topSize / 512 * 512, "upper");
        await WriteAsync(folder["top"], new Random(8), topSize / 512 * 512, 512, 50);
        await CompareAsync(folder["top"]);
    }

    [TestCase("3000320", "+1M")]
    [TestCase("8M", "3000320")]
    public async Task Snapshots_and_resized_images_are_read(string first, string second)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        await Peer.OutputAsync("qemu-img", "create", "-q", "-f", "qcow2", image, first);
        await WriteAsync(image, new Random(9), 3_000_320, 65_536, 30);
        await Peer.OutputAsync("qemu-img", "snapshot", "-c", "before", image);
        await Peer.OutputAsync("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", image, second);
        await WriteAsync(image, new Random(10), 3_000_320, 65_536, 30, isNew: false);
        await Peer.OutputAsync("qemu-img", "snapshot", "-c", "after", image);
        await WriteAsync(image, new Random(11), 3_000_320, 65_536, 30, isNew: false);
        await CompareAsync(image);
        await CompareAsync(image, "before");
        await CompareAsync(image, "after");
        byte[] after = await File.ReadAllBytesAsync(image + ".raw");
        await using NbdBackend chain = Chain(image, "2");
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((await TestData.ReadAsync(disk, 0, after.Length)).AsSpan().SequenceEqual(after), "by its id");
        await using NbdBackend wrong = Chain(image, "other");
        Assert.That(TestData.Failure(async () => await wrong.OpenAsync()).Message, Does.Contain("no snapshot 'other', but before, after"));
    }

    [TestCase("")]
    [TestCase(",data_file_raw=on")]
    public async Task An_external_data_file_is_read(string options)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        await CreateAsync(image, $"data_file={folder["data"]}{options}", 3_000_320);
        await WriteAsync(image, new Random(12), 3_000_320, 65_536, 40, isNew: false);
        await CompareAsync(image, exact: options.Length == 0);
    }

    [Test]
    public async Task What_is_compressed_in_another_way_is_refused()
    {
        Peer.Require("qemu-img");
        using var folder = new ScratchDirectory();
        await CreateAsync(folder["image"], "compression_type=zstd", 1 << 20);
        await using NbdBackend chain = Chain(folder["image"]);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("compression type 1 (zstd)"));
    }

    [Test]
    public async Task Clients_of_the_command_get_what_QEMU_reads()
    {
        Peer.Require("qemu-img", "qemu-io", "qemu-nbd", "nbdcopy", "nbdinfo");
        using var folder = new ScratchDirectory();
        // Of the same size: behind the end of a shorter one qemu-nbd says that its zeroes are its own, qemu-img that they are nobody's.
        folder.Write("base", TestData.Random(8 << 20, 13));
        await CreateAsync(folder["image"], "", 8 << 20, "base", "raw");
        await WriteAsync(folder["image"], new Random(14), 8 << 20, 65_536, 60);
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await using ToolProcess tool = ToolProcess.Start(
            ["-U", folder["s"], "--filter=qcow2dec", "file", $"file={folder["image"]}", $"qcow2-backing-dir={folder.Path}"]);
        await tool.LineAsync();
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, folder["image"]);
        await Peer.OutputAsync("nbdcopy", "--connections=4", "--requests=32", uri, folder["copy"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder["image"], folder["raw"]);
        await SameFile.CheckAsync(folder["copy"], folder["raw"], "nbdcopy");
        string depths = await Peer.OutputAsync("nbdinfo", "--map=qemu:allocation-depth", uri);
        string theirs = await Peer.OutputAsync(
            "nbdinfo", "--map=qemu:allocation-depth", "--", "[", "qemu-nbd", "-r", "-A", "-f", "qcow2", folder["image"], "]");
        Assert.That(depths, Is.EqualTo(theirs));
        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }
}
