using System.Text;
using NbdKit.Plugins;
using NbdKit.Plugins.Fat;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

[Platform("Linux")]
[Parallelizable(ParallelScope.All)]
public sealed class FloppyPluginTests
{
    private const long Smallest = 35_151_872;
    private const int Seed = 20261126;

    private static NbdBackend Chain(ScratchDirectory tree, long? size = null, string label = "x")
        => NbdBackend.Compose(new FloppyPlugin { Directory = tree.Path, Size = size, Label = label });

    private static async Task CheckAsync(FatReader found, string tree, string what)
    {
        string[] paths = [.. Directory.EnumerateFileSystemEntries(tree, "*", SearchOption.AllDirectories)];
        Assert.That(found.Entries.Keys, Is.EquivalentTo(paths.Select(path => Path.GetRelativePath(tree, path))), what);
        foreach (string path in paths)
        {
            (byte[]? content, DateTime modified) = found.Entries[Path.GetRelativePath(tree, path)];
            Assert.That(content is null, Is.EqualTo(Directory.Exists(path)), $"{what}: {path}");
            if (content is not null)
            {
                Assert.That(content, Is.EqualTo(await File.ReadAllBytesAsync(path)), $"{what}: {path}");
                Assert.That(modified, Is.EqualTo(File.GetLastWriteTime(path)), $"{what}: {path}");
            }
        }
    }

    [Test]
    public async Task A_random_tree_reads_back_and_any_range_is_the_same_as_in_the_whole([Range(1, 4)] int round)
    {
        using var tree = new ScratchDirectory();
        FatTrees.Make(tree.Path, Seed + round, "😀");
        await using NbdBackend chain = Chain(tree, label: "my label");
        await using NextContext disk = await chain.OpenAsync();
        FatReader reader = await FatReader.ReadAsync(disk);
        await CheckAsync(reader, tree.Path, $"seed {Seed + round}");
        Assert.That((reader.Label, disk.Info.Size), Is.EqualTo(("MY LABEL   ", Smallest)));
        await ImageImages.CheckAsync(disk, await TestData.ReadAsync(disk, 0, (int)disk.Info.Size), Seed + round, rounds: 100);
    }

    [TestCase(Smallest, 512)]
    [TestCase(Smallest + 513, 512)]
    [TestCase(100 << 20, 1024)]
    [TestCase(200 << 20, 2048)]
    [TestCase(1 << 30, 4096)]
    [TestCase(16L << 30, 8192)]
    [TestCase((2L << 40) - 512, 32_768)]
    public async Task Disks_have_the_size_asked_for(long size, int clusterSize)
    {
        using var tree = new ScratchDirectory();
        FatTrees.Make(tree.Path, Seed);
        await using NbdBackend chain = Chain(tree, size);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(size));
        ExtentList extents = await disk.ExtentsFullAsync(size - 5000, 5000, ExtentList.BaseAllocation, default);
        Assert.That(extents.All(extent => extent.Status == (ExtentStatus.Zero | ExtentStatus.Hole)));
        if (size < 2L << 35)
        {
            FatReader reader = await FatReader.ReadAsync(disk);
            await CheckAsync(reader, tree.Path, "");
            Assert.That(reader.ClusterSize, Is.EqualTo(clusterSize));
        }
        else
        {
            Assert.That((await TestData.ReadAsync(disk, 1 << 20, 512))[13] * 512, Is.EqualTo(clusterSize));
        }
    }

    [TestCase(0)]
    [TestCase(Smallest - 1)]
    public void A_disk_that_is_too_small_is_refused(long size)
    {
        using var tree = new ScratchDirectory();
        Assert.That(Refusal(tree, size), Does.Contain($"size={size} is too small").And.Contain($"{Smallest}"));
    }

    [Test]
    public async Task The_largest_file_is_served_without_being_read_and_a_larger_one_refused()
    {
        using var tree = new ScratchDirectory();
        tree.WriteHole("largest", uint.MaxValue);
        await using (NbdBackend chain = Chain(tree))
        {
            await using NextContext disk = await chain.OpenAsync();
            Assert.That(disk.Info.Size, Is.GreaterThan(uint.MaxValue));
            ExtentList tail = await disk.ExtentsFullAsync(disk.Info.Size - 4096, 4096, ExtentList.BaseAllocation, default);
            Assert.That(tail.Select(extent => (extent.Length, extent.Status)), Is.EqualTo(new[]
            {
                (4095L, ExtentStatus.Data), (1L, ExtentStatus.Hole | ExtentStatus.Zero),
            }));
        }
        tree.WriteHole("larger", 1L << 32);
        Assert.That(Refusal(tree), Does.Contain(tree["larger"]).And.Contain("below 4 GiB"));
    }

    [TestCase("a:b", "one of")]
    [TestCase("a\u0001", "control character")]
    [TestCase("a.", "ends with a dot")]
    [TestCase("a ", "ends with a dot or a space")]
    public void Names_that_cannot_be_held_are_refused(string name, string reason)
    {
        using var tree = new ScratchDirectory();
        Directory.CreateDirectory(tree["sub"]);
        tree.Write("sub/" + name, []);
        Assert.That(Refusal(tree), Does.Contain(tree["sub/" + name]).And.Contain(reason));
    }

    [Test]
    public void Special_files_invalid_text_and_names_that_differ_in_case_are_refused()
    {
        using var tree = new ScratchDirectory();
        ScratchDirectory.Run("mkfifo", tree["pipe"]);
        Assert.That(Refusal(tree), Does.Contain(tree["pipe"]).And.Contain("neither a regular file nor a directory"));
        File.Delete(tree["pipe"]);
        ScratchDirectory.Run("sh", "-c", $"cd '{tree.Path}' && : > \"$(printf 'a\\377')\"");
        Assert.That(Refusal(tree), Does.Contain("not valid UTF-8"));
        ScratchDirectory.Run("sh", "-c", $"rm '{tree.Path}'/*");
        tree.Write("Name", []);
        tree.Write("nAME", []);
        Assert.That(Refusal(tree), Does.Contain(tree["nAME"]).And.Contain("upper and lower case"));
    }

    [Test]
    public void Trees_are_bounded()
    {
        using var tree = new ScratchDirectory();
        Directory.CreateDirectory(tree["a/b/c"]);
        Assert.That(FatTree.Read(tree.Path, 4, 4, default).Nodes, Has.Count.EqualTo(4));
        Assert.That(
            Assert.Throws<NbdException>(() => FatTree.Read(tree.Path, 3, 4, default))!.Message, Does.Contain("more than 3 files"));
        Assert.That(
            Assert.Throws<NbdException>(() => FatTree.Read(tree.Path, 9, 3, default))!.Message,
            Does.Contain(tree["a/b/c"]).And.Contain("more than 3 directories deep"));
        for (int i = 0; i < 3500; i++)
        {
            tree.Write($"{i:d4}{new string('x', 240)}", []);
        }
        Assert.That(Refusal(tree), Does.Contain(tree.Path).And.Contain("too many, or too long"));
    }

    [Test]
    public async Task Links_are_left_out()
    {
        using var tree = new ScratchDirectory();
        using var outside = new ScratchDirectory();
        outside.Write("secret", new byte[10]);
        File.CreateSymbolicLink(tree["file"], outside["secret"]);
        Directory.CreateSymbolicLink(tree["directory"], outside.Path);
        await using NbdBackend chain = Chain(tree);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((await FatReader.ReadAsync(disk)).Entries, Is.Empty);
    }

    [Test]
    public async Task A_file_that_changes_fails_its_reads_and_shows_no_other_data()
    {
        using var tree = new ScratchDirectory();
        using var outside = new ScratchDirectory();
        Directory.CreateDirectory(tree["d"]);
        byte[] content = TestData.Random(100_000, 1);
        tree.Write("1", content);
        tree.Write("2", content);
        tree.Write("d/3", content);
        tree.Write("4", content[..100]);
        outside.Write("3", TestData.Random(100_000, 2));
        await using NbdBackend chain = Chain(tree);
        await using NextContext disk = await chain.OpenAsync();
        byte[] whole = await TestData.ReadAsync(disk, 0, 2 << 20);
        int first = whole.AsSpan().IndexOf(content);
        int second = first + 512 + whole.AsSpan(first + 512).IndexOf(content);
        int fourth = second + 100_352;
        Assert.That(whole.AsSpan(fourth, 100).SequenceEqual(content.AsSpan(0, 100)));

        using (FileStream file = File.OpenWrite(tree["1"]))
        {
            file.SetLength(1000);
        }
        Assert.That(await TestData.ReadAsync(disk, first, 1000), Is.EqualTo(content[..1000]));
        Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, first, 1001)).Error, Is.EqualTo(NbdError.IoError));
        Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, first + 5000, 1)).Error, Is.EqualTo(NbdError.IoError));
        await File.AppendAllTextAsync(tree["4"], "more");
        Assert.That(await TestData.ReadAsync(disk, fourth, 512), Is.EqualTo(whole[fourth..(fourth + 512)]));

        await using NextContext other = await chain.OpenAsync();
        File.Move(outside.Write("new", new byte[100_000]), tree["2"], overwrite: true);
        Assert.That(await TestData.ReadAsync(disk, second, 5000), Is.EqualTo(content[..5000]), "open before");
        Assert.That(TestData.Failure(() => TestData.ReadAsync(other, second, 5000)).Error, Is.EqualTo(NbdError.IoError));
        Directory.Delete(tree["d"], recursive: true);
        Directory.CreateSymbolicLink(tree["d"], outside.Path);
        int third = whole.AsSpan(fourth).IndexOf(content) + fourth;
        Assert.That(TestData.Failure(() => TestData.ReadAsync(other, third, 5000)).Error, Is.EqualTo(NbdError.IoError));
        Assert.That(await TestData.ReadAsync(other, 0, 512), Is.EqualTo(whole[..512]));
    }

    [Test]
    public async Task Many_files_are_read_in_parallel_with_few_of_them_open()
    {
        using var tree = new ScratchDirectory();
        for (int i = 0; i < 100; i++)
        {
            tree.Write($"{i}", TestData.Random(512, i));
        }
        await using NbdBackend chain = Chain(tree);
        await using NextContext disk = await chain.OpenAsync();
        byte[] whole = await TestData.ReadAsync(disk, 0, 2 << 20);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(worker => Task.Run(async () =>
        {
            var random = new Random(Seed + worker);
            for (int i = 0; i < 500; i++)
            {
                int offset = random.Next(1_330_000, 1_400_000);
                Assert.That((await TestData.ReadAsync(disk, offset, 700)).AsSpan().SequenceEqual(whole.AsSpan(offset, 700)), $"seed {Seed}");
            }
        })));
        int open = Directory.GetFiles("/proc/self/fd").Count(link => new FileInfo(link).LinkTarget?.StartsWith(tree.Path, StringComparison.Ordinal) == true);
        Assert.That(open, Is.InRange(1, 16));
    }

    [TestCase("", false)]
    [TestCase("elevenchars", true)]
    [TestCase("twelve chars", false)]
    [TestCase(" x", false)]
    [TestCase("a.b", false)]
    [TestCase("größe", false)]
    public void Labels_are_checked(string label, bool good)
        => Assert.That(
            () => new FloppyPlugin { Directory = "/", Label = label }, good ? Throws.Nothing : Throws.ArgumentException.With.Message.Contains("label"));

    [Test]
    public void Short_names_are_unique_and_those_that_are_short_keep_theirs()
    {
        string[] names = ["LONGFI~1.TXT", "long file one.txt", "long file two.txt", ".profile", "a.b.c", "READ.ME", "read", "日本.x", "+"];
        FatNode[] nodes = [.. names.Select(name => new FatNode { Path = name, Name = name, Modified = default })];
        FatNames.Assign(nodes);
        Assert.That(nodes.Select(node => Encoding.ASCII.GetString(node.ShortName)), Is.EqualTo(new[]
        {
            "LONGFI~1TXT", "LONGFI~2TXT", "LONGFI~3TXT", "PROFIL~1   ", "AB~1    C  ", "READ    ME ", "READ       ", "__~1    X  ", "_~1        ",
        }));
        Assert.That(nodes.Select(node => node.HasLongName), Is.EqualTo(new[] { false, true, true, true, true, false, true, true, true }));
    }

    [Test]
    public void Dates_are_those_that_can_be_held()
    {
        Assert.That(FatDirectory.Stamp(new DateTime(2026, 11, 26, 19, 48, 33, 990)), Is.EqualTo(((ushort)0x5d7a, (ushort)0x9e10, (byte)199)));
        Assert.That(FatDirectory.Stamp(DateTime.UnixEpoch), Is.EqualTo(((ushort)0x21, (ushort)0, (byte)0)));
        Assert.That(FatDirectory.Stamp(new DateTime(2200, 1, 1)).Date, Is.EqualTo(0xff9f));
    }

    private static string Refusal(ScratchDirectory tree, long? size = null)
        => Assert.ThrowsAsync<NbdException>(() => Chain(tree, size).StartAsync().AsTask())!.Message;
}
