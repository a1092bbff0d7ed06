using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>File systems that mke2fs made, with whatever features it has, against what debugfs and e2fsck see in them.</summary>
public sealed class Ext2Tests
{
    private const int Seed = 7;
    private static readonly CancellationToken None = CancellationToken.None;
    private Ext2Tree _tree = null!;

    [OneTimeSetUp]
    public void MakeTree() => _tree = new Ext2Tree(many: 300);

    [OneTimeTearDown]
    public void RemoveTree() => _tree.Dispose();

    private static NbdBackend Chain(string image, string? file = null)
        => NbdBackend.Compose(new FilePlugin { Path = image }, new Ext2Filter { File = file });

    private static readonly TestCaseData[] FeatureSets =
    [
        Set("ext2 of revision 0", "-r 0 -t ext2 -b 1024"),
        Set("ext2 1K", "-t ext2 -b 1024", indexed: true),
        Set("ext2 4K", "-t ext2 -b 4096"),
        Set("ext2 without file types", "-t ext2 -O ^filetype,^dir_index -b 2048 -I 128"),
        Set("ext3", "-t ext3 -b 1024 -J size=1"),
        Set("ext4", "-t ext4 -b 4096 -J size=4", indexed: true),
        Set("ext4 1K", "-t ext4 -b 1024 -J size=1", indexed: true),
        Set("ext4 without extents", "-t ext4 -O ^extent,^64bit,^flex_bg -b 1024 -J size=1"),
        Set("ext4 of 32 bits with small inodes", "-t ext4 -O ^64bit -I 128 -b 1024 -J size=1"),
        Set("ext4 with checksums of groups", "-t ext4 -O ^metadata_csum,uninit_bg -b 1024 -J size=1"),
        Set("ext4 with checksums of groups of 32 bits", "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -b 1024 -J size=1"),
        Set("ext4 without checksums", "-t ext4 -O ^metadata_csum,^uninit_bg -b 1024 -J size=1", indexed: true),
        Set("inline data", "-t ext4 -O inline_data,^has_journal -I 256 -b 1024", indexed: true),
        Set("inline data in large inodes", "-t ext4 -O inline_data,^has_journal -I 1024 -b 4096"),
        Set("bigalloc 1K", "-t ext4 -O bigalloc,^has_journal,^resize_inode -C 4096 -b 1024"),
        Set("bigalloc 4K", "-t ext4 -O bigalloc,^has_journal -C 16384 -b 4096", size: "32M"),
        Set("meta groups", "-t ext4 -O meta_bg,^resize_inode,^has_journal -b 1024 -g 256 -N 500", indexed: true),
        Set("meta groups and two copies", "-t ext2 -O meta_bg,sparse_super2,^resize_inode -b 1024 -g 256 -N 500"),
        Set("meta groups and a copy in each group", "-t ext2 -O meta_bg,^sparse_super,^resize_inode -b 1024 -g 256 -N 500"),
        Set("two copies", "-t ext4 -O sparse_super2,^resize_inode,^has_journal -b 1024 -g 1024"),
        Set("a seed of its own", "-t ext4 -O metadata_csum_seed,^has_journal -b 1024"),
        Set("most other features", "-t ext4 -O large_dir,encrypt,casefold,verity,quota,project,orphan_file -b 4096 -J size=4", indexed: true),
        Set("64K", "-t ext4 -O ^has_journal -b 65536", size: "96M", indexed: true),
    ];

    private static TestCaseData Set(string name, string options, string size = "16M", bool indexed = false)
        => new TestCaseData(options, size, indexed).SetName($"Every file reads as debugfs sees it: {name}");

    [TestCaseSource(nameof(FeatureSets))]
    public async Task Every_file_reads_as_debugfs_sees_it(string options, string size, bool indexed)
        => await CompareAsync(_tree, options, size, indexed);

    [Test]
    public async Task A_file_with_three_levels_of_indirect_blocks_reads_as_debugfs_sees_it()
    {
        using var tree = new Ext2Tree(many: 1, sparse: 70_000_123);
        await CompareAsync(tree, "-t ext2 -b 1024", "16M", indexed: false);
    }

    private static async Task CompareAsync(Ext2Tree tree, string options, string size, bool indexed)
    {
        using Ext2Image image = await Ext2Image.MakeAsync(tree, options, size, indexed);
        string[] names =
        [
            "/empty", "/tiny", "/medium", "/big", "/sieve", "/sparse", "/folder/sub/file",
        ];
        IReadOnlyList<byte[]> dumps = await image.DumpAsync(names);
        await using NbdBackend chain = Chain(image.Path);
        for (int i = 0; i < names.Length; i++)
        {
            byte[] expected = image.Files[names[i]];
            // debugfs dumps all the 60 bytes in an inode, however few of them are content.
            Assert.That(dumps[i].Length == expected.Length || (dumps[i].Length == 60 && expected.Length < 60), names[i]);
            Assert.That(dumps[i].AsSpan(0, expected.Length).SequenceEqual(expected), $"debugfs: {names[i]}");
            await CompareAsync(chain, names[i], expected);
        }
        foreach ((string alias, string name) in Ext2Tree.Aliases)
        {
            await CompareAsync(chain, alias, image.Files[name]);
        }
        var random = new Random(Seed);
        string[] many = [.. image.Files.Keys.Where(name => name.Contains("/many/", StringComparison.Ordinal))];
        foreach (string name in random.GetItems(many, 20).Append(many[0]).Append(many[^1]))
        {
            await CompareAsync(chain, name, image.Files[name]);
        }
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("/folder/many/a name")).Message, Does.Contain("no such file"));
    }

    private static async Task CompareAsync(NbdBackend chain, string name, byte[] expected)
    {
        await using NextContext file = await chain.OpenAsync(name);
        Assert.That(file.Info.Size, Is.EqualTo(expected.Length), name);
        if (expected.Length == 0)
        {
            return;
        }
        byte[] actual = await TestData.ReadAsync(file, 0, expected.Length);
        Assert.That(actual.AsSpan().SequenceEqual(expected), $"{name}, as a whole");
        var random = new Random(Seed);
        for (int i = 0; i < 20; i++)
        {
            int offset = random.Next(expected.Length);
            int length = random.Next(1, Math.Min(20_000, expected.Length - offset) + 1);
            actual = await TestData.ReadAsync(file, offset, length);
            Assert.That(actual.AsSpan().SequenceEqual(expected.AsSpan(offset, length)), $"{name}, {length} bytes at {offset}");
        }
        ExtentList extents = await file.ExtentsFullAsync(0, expected.Length, ExtentList.BaseAllocation, None);
        Assert.That(extents.Covered, Is.EqualTo(expected.Length), name);
        foreach (Extent hole in extents.Where(e => e.Status != ExtentStatus.Data))
        {
            Assert.That(hole.Status, Is.EqualTo(ExtentStatus.Hole | ExtentStatus.Zero), name);
            Assert.That(
                expected.AsSpan((int)hole.Offset, (int)hole.Length).ContainsAnyExcept((byte)0), Is.False,
                $"{name}: {hole}");
        }
    }

    [TestCase("-t ext2 -b 1024")]
    [TestCase("-t ext4 -O ^has_journal -b 1024")]
    [TestCase("-t ext4 -O ^has_journal -b 4096")]
    public async Task Extents_are_where_debugfs_finds_blocks(string options)
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, options, "16M");
        await using NbdBackend chain = Chain(image.Path);
        foreach (string name in new[] { "/sieve", "/sparse" })
        {
            await using NextContext file = await chain.OpenAsync(name);
            ExtentList extents = await file.ExtentsFullAsync(0, file.Info.Size, ExtentList.BaseAllocation, None);
            var random = new Random(Seed);
            // Mostly around the borders of extents, where mistakes are made.
            long[] blocks =
            [
                .. Enumerable.Range(0, 150).Select(_ => random.NextInt64(file.Info.Size) / image.BlockSize),
                .. extents.Take(100).Select(e => e.Offset / image.BlockSize),
                .. extents.Take(100).Select(e => (e.End - 1) / image.BlockSize),
            ];
            string[] places = await image.DebugAsync([.. blocks.Select(block => $"bmap {name} {block}")]);
            Assert.That(places, Has.Length.EqualTo(blocks.Length));
            for (int i = 0; i < blocks.Length; i++)
            {
                Extent extent = extents.Last(e => e.Offset <= blocks[i] * image.BlockSize);
                Assert.That(
                    extent.Status == ExtentStatus.Data, Is.EqualTo(places[i].Trim() != "0"), $"{name}, block {blocks[i]}: {places[i]}");
            }
        }
    }

    [TestCase("-t ext2 -b 1024")]
    [TestCase("-t ext3 -b 4096 -J size=4")]
    [TestCase("-t ext4 -b 1024 -J size=1")]
    [TestCase("-t ext4 -O bigalloc,^has_journal -C 8192 -b 4096")]
    public async Task What_is_written_is_what_debugfs_sees_and_e2fsck_finds_nothing(string options)
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, options, "16M");
        string[] names = ["/big", "/sieve", "/sparse", "/folder/sub/file"];
        byte[][] expected = [.. names.Select(name => (byte[])image.Files[name].Clone())];
        var random = new Random(Seed);
        int refused = 0;
        await using (NbdBackend chain = Chain(image.Path))
        {
            for (int i = 0; i < names.Length; i++)
            {
                await using NextContext file = await chain.OpenAsync(names[i]);
                Assert.That(file.Info.CanWrite);
                for (int round = 0; round < 60; round++)
                {
                    byte[] data = TestData.Random(random.Next(1, 3000), random.Next());
                    int offset = random.Next(expected[i].Length - data.Length + 1);
                    if (round % 4 == 0)
                    {
                        await file.ZeroAsync(offset, data.Length, RequestFlags.MayTrim, None);
                        expected[i].AsSpan(offset, data.Length).Clear();
                        continue;
                    }
                    try
                    {
                        await file.WriteAsync(data, offset, RequestFlags.None, None);
                        data.CopyTo(expected[i], offset);
                    }
                    catch (NbdException e) when (e.Error == NbdError.NoSpace)
                    {
                        refused++;
                    }
                }
                await file.FlushAsync(None);
                byte[] read = await TestData.ReadAsync(file, 0, expected[i].Length);
                Assert.That(read.AsSpan().SequenceEqual(expected[i]), names[i]);
            }
        }
        IReadOnlyList<byte[]> dumps = await image.DumpAsync(names);
        for (int i = 0; i < names.Length; i++)
        {
            Assert.That(dumps[i].AsSpan().SequenceEqual(expected[i]), names[i]);
        }
        Assert.That(refused, Is.InRange(1, 150), "writes into holes");
        await image.CheckAsync();
    }

    [Test]
    public async Task A_fast_zero_that_is_refused_has_no_effect()
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, "-t ext4 -O ^has_journal -b 1024", "16M");
        var plugin = new TestPlugin(new TestExport { Data = await File.ReadAllBytesAsync(image.Path) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new Ext2Filter { File = "/sieve" });
        await using NextContext file = await chain.OpenAsync();
        NbdException e = TestData.Failure(async () => await file.ZeroAsync(0, 20_000, RequestFlags.FastZero, None));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
        Assert.That((await TestData.ReadAsync(file, 0, 20_000)).AsSpan().SequenceEqual(_tree.Files["/sieve"].AsSpan(0, 20_000)));
        await file.ZeroAsync(100, 8000, RequestFlags.FastZero, None);
        await file.ZeroAsync(1100, 5000, RequestFlags.FastZero, None);
        Assert.That(plugin.Calls.Where(call => call.Op == PluginOp.Zero).Select(call => call.Length), Is.EqualTo(new[] { 924L }));
        Assert.That((await TestData.ReadAsync(file, 100, 8000)).AsSpan().ContainsAnyExcept((byte)0), Is.False);
    }

    [Test]
    public async Task Blocks_that_were_reserved_but_never_written_are_a_hole()
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, "-t ext4 -O ^has_journal -b 1024", "16M");
        await image.DebugAsync("fallocate /folder/sub/file 3 2000", "punch /big 10 19", "sif /folder/sub/file size 1000000");
        await using NbdBackend chain = Chain(image.Path);
        await using NextContext file = await chain.OpenAsync("/folder/sub/file");
        ExtentList extents = await file.ExtentsFullAsync(0, file.Info.Size, ExtentList.BaseAllocation, None);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 5120, ExtentStatus.Data),
            new Extent(5120, 994_880, ExtentStatus.Hole | ExtentStatus.Zero),
        }));
        // The image holds something where the file has nothing.
        byte[] read = await TestData.ReadAsync(file, 4000, 400_000);
        Assert.That(read.AsSpan(0, 1000).SequenceEqual(image.Files["/folder/sub/file"].AsSpan(4000)));
        Assert.That(read.AsSpan(1120).ContainsAnyExcept((byte)0), Is.False);
        NbdException e = TestData.Failure(async () => await file.WriteAsync(new byte[1], 5120, RequestFlags.None, None));
        Assert.That(e.Error, Is.EqualTo(NbdError.NoSpace));

        await using NextContext big = await chain.OpenAsync("/big");
        byte[] expected = [.. image.Files["/big"]];
        expected.AsSpan(10 * 1024, 10 * 1024).Clear();
        Assert.That((await TestData.ReadAsync(big, 0, expected.Length)).AsSpan().SequenceEqual(expected));
    }

    [Test]
    public async Task Checksums_of_extent_trees_and_of_indexes_are_verified()
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, "-t ext4 -O ^has_journal -b 1024", "16M", indexed: true);
        byte[] bytes = await File.ReadAllBytesAsync(image.Path);
        int node = (int)BitConverter.ToUInt32(bytes, (int)await image.InodeOffsetAsync("/sieve") + 0x28 + 16) * 1024;
        int index = int.Parse((await image.DebugAsync("bmap /folder/many 0"))[0]) * 1024;
        Assert.That(bytes.AsSpan(index + 26, 6).ToArray(), Is.EqualTo(new byte[] { 0, 0, bytes[index + 28], 8, 0, 0 }), "a directory with an index");
        foreach ((int at, string path) in new[] { (node + 20, "/sieve"), (index + 44, _tree.Files.Keys.Last()) })
        {
            byte[] damaged = (byte[])bytes.Clone();
            damaged[at] ^= 1;
            await using NbdBackend chain = NbdBackend.Compose(
                new TestPlugin(new TestExport { Data = damaged }), new Ext2Filter { File = path });
            NbdException e = TestData.Failure(async () =>
            {
                await using NextContext file = await chain.OpenAsync();
                await TestData.ReadAsync(file, 0, 1);
            });
            Assert.That((e.Error, e.Message.EndsWith("wrong checksum", StringComparison.Ordinal)), Is.EqualTo((NbdError.IoError, true)), e.Message);
        }
    }

    [Test]
    public async Task Clients_of_many_connections_read_and_write_one_file()
    {
        using Ext2Image image = await Ext2Image.MakeAsync(_tree, "-t ext4 -b 4096 -J size=4", "16M");
        byte[] content = TestData.Random(image.Files["/big"].Length, Seed + 1);
        using (var folder = new ScratchDirectory())
        {
            string from = folder.Write("from", content);
            await using InteropServer server = await InteropServer.StartAsync(Chain(image.Path));
            Peer.Require("nbdcopy");
            (await Peer.RunAsync("nbdcopy", "--connections=4", "--requests=16", "--request-size=32768", from, server.UriOf("/big")))
                .Expect(0);
            (await Peer.RunAsync("nbdcopy", "--connections=4", server.UriOf("absolute"), folder["to"])).Expect(0);
            Assert.That((await File.ReadAllBytesAsync(folder["to"])).AsSpan().SequenceEqual(content));
        }
        Assert.That((await image.DumpAsync("/big"))[0].AsSpan().SequenceEqual(content));
        await image.CheckAsync();
    }
}
