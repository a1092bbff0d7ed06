using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class TarFilterTests
{
    private static readonly byte[] Content = TestData.Random(3000);

    private static NbdBackend Chain(INbdPlugin plugin, string entry, long? limit = null)
        => NbdBackend.Compose(plugin, new TarFilter { TarEntry = entry, Limit = limit });

    private static async Task<byte[]> ContentAsync(byte[] archive, string entry, long? limit = null)
    {
        await using NbdBackend chain = Chain(new ModelPlugin(archive), entry, limit);
        await using NextContext disk = await chain.OpenAsync();
        return disk.Info.Size == 0 ? [] : await TestData.ReadAsync(disk, 0, (int)disk.Info.Size);
    }

    private static string Refusal(byte[] archive, string entry, long? limit = null)
    {
        NbdException e = TestData.Failure(() => ContentAsync(archive, entry, limit));
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        return e.Message;
    }

    private static byte[] Archive() => new TarImage()
        .Add("folder/", [], '5')
        .Add("folder/one", TestData.Random(700, 7))
        .Add("link", [], '2')
        .Add("folder/disk", Content)
        .Add("empty", [])
        .Add("folder/disk", TestData.Random(10, 8))
        .End().Bytes;

    [Test]
    public async Task The_first_file_of_the_name_is_served_and_nothing_else_changes()
    {
        byte[] archive = Archive();
        var plugin = new ModelPlugin(archive, ModelPlugin.Everything with { Description = "an archive" });
        await using NbdBackend chain = Chain(plugin, "folder/disk");
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info, Is.EqualTo(plugin.Info with { Size = Content.Length }));
        Assert.That(await TestData.ReadAsync(disk, 0, Content.Length), Is.EqualTo(Content));
        Assert.That(await ContentAsync(archive, "folder/one"), Is.EqualTo(TestData.Random(700, 7)));
        Assert.That(await ContentAsync(archive, "empty"), Is.Empty);
    }

    [Test]
    public async Task Every_request_is_moved_with_its_flags()
    {
        var plugin = new ModelPlugin(Archive());
        await using NbdBackend chain = Chain(plugin, "folder/disk");
        await using NextContext disk = await chain.OpenAsync();
        long start = plugin.Data.AsSpan().IndexOf(Content);
        plugin.TakeCalls();
        await disk.WriteAsync(new byte[10], 20, RequestFlags.Fua, default);
        await disk.TrimAsync(1, 2, RequestFlags.None, default);
        await disk.ZeroAsync(3, 4, RequestFlags.MayTrim, default);
        await disk.CacheAsync(5, 6, default);
        await disk.FlushAsync(default);
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            $"write {start + 20}+10 Fua", $"trim {start + 1}+2", $"zero {start + 3}+4 MayTrim", $"cache {start + 5}+6", "flush",
            $"extents {start}+3000",
        }));
        Assert.That((extents[0].Offset, extents[^1].End), Is.EqualTo((0L, (long)Content.Length)));
    }

    [Test]
    public void What_is_not_a_file_of_the_archive_fails_the_open()
    {
        Assert.That(Refusal(Archive(), "disk"), Is.EqualTo("'disk' is not one of the 4 files of the tar archive"));
        Assert.That(Refusal(Archive(), "folder/"), Does.Contain("not one of"));
        Assert.That(Refusal(Archive(), "link"), Does.Contain("not one of"));
        Assert.That(Refusal([], "disk"), Does.Contain("of the 0 files"));
        Assert.That(Refusal(new byte[1024], "disk"), Does.Contain("of the 0 files"));
    }

    [Test]
    public async Task A_limit_bounds_the_search()
    {
        byte[] archive = Archive();
        int header = archive.AsSpan().IndexOf(Content) - TarImage.Block;
        Assert.That(await ContentAsync(archive, "folder/disk", header + 1), Is.EqualTo(Content));
        Assert.That(
            Refusal(archive, "folder/disk", header),
            Is.EqualTo($"'folder/disk' is not one of the 1 files of the tar archive that begin in the first {header} bytes"));
    }

    [Test]
    public async Task Long_names_of_all_kinds_are_put_together()
    {
        string longName = string.Concat(Enumerable.Repeat("0123456789/", 60)) + "dïsk";
        byte[] archive = new TarImage()
            .Add("disk", Content.AsSpan(0, 10), prefix: "a/prefix")
            .Add("././@LongLink", System.Text.Encoding.UTF8.GetBytes(longName + "\0"), 'L')
            .Add("0123", Content.AsSpan(0, 20))
            .AddPax("mtime=1", $"path=pax/{longName}", "atime=2")
            .Add("0123", Content.AsSpan(0, 30))
            .Add("././@LongLink", "to\0"u8, 'K')
            .AddPax("path=a link")
            .Add("0123", [], '1')
            .Add("0123", Content.AsSpan(0, 40))
            .Bytes;
        Assert.That(await ContentAsync(archive, "a/prefix/disk"), Has.Length.EqualTo(10));
        Assert.That(await ContentAsync(archive, longName), Has.Length.EqualTo(20));
        Assert.That(await ContentAsync(archive, "pax/" + longName), Has.Length.EqualTo(30));
        Assert.That(await ContentAsync(archive, "0123"), Has.Length.EqualTo(40));
    }

    [TestCase(true)]
    [TestCase(false)]
    public async Task Sizes_from_8_GiB_on_are_understood(bool pax)
    {
        const long Size = (9L << 30) + 512;
        var image = new TarImage();
        byte[] start = (pax ? image.AddPax($"size={Size}").AddRaw(TarImage.Header("big", 0)) : image.AddRaw(TarImage.Header("big", Size))).Bytes;
        var disk = new NbdKit.Plugins.MemoryPlugin { Size = start.Length + Size + 2048 };
        await using NbdBackend memory = NbdBackend.Compose(disk);
        await using (NextContext whole = await memory.OpenAsync())
        {
            await whole.WriteAsync(start, 0, RequestFlags.None, default);
            await whole.WriteAsync(TarImage.Header("after", 1000), start.Length + Size, RequestFlags.None, default);
            await whole.WriteAsync(new byte[] { 77 }, start.Length + Size - 1, RequestFlags.None, default);
        }
        await using NbdBackend chain = NbdBackend.Compose(
            new NbdKit.Plugins.ConcatPlugin { Chains = [memory] }, new TarFilter { TarEntry = "big" });
        await using NextContext big = await chain.OpenAsync();
        Assert.That(big.Info.Size, Is.EqualTo(Size));
        Assert.That(await TestData.ReadAsync(big, Size - 2, 2), Is.EqualTo(new byte[] { 0, 77 }));
    }

    [Test]
    public async Task A_file_of_whole_blocks_is_served_from_a_layer_that_has_blocks()
    {
        byte[] archive = new TarImage().Add("gap", new byte[3072]).Add("disk", TestData.Random(8192)).Add("odd", new byte[100]).Bytes;
        Array.Resize(ref archive, 16384);
        var plugin = new ModelPlugin(archive, ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) });
        await using NbdBackend chain = Chain(plugin, "disk");
        await using (NextContext disk = await chain.OpenAsync())
        {
            Assert.That(await TestData.ReadAsync(disk, 0, 8192), Is.EqualTo(TestData.Random(8192)));
        }
        await using NbdBackend inside = Chain(plugin, "gap");
        Assert.That(TestData.Failure(async () => await inside.OpenAsync()).Message, Does.Contain("blocksize filter"));
        var small = new ModelPlugin(archive, ModelPlugin.Everything with { BlockSize = new BlockSize(512, 512) });
        await using NbdBackend odd = Chain(small, "odd");
        Assert.That(TestData.Failure(async () => await odd.OpenAsync()).Message, Does.Contain("has 100 bytes, which is not a multiple"));
        Assert.That(plugin.Offence ?? small.Offence, Is.Null);
    }

    [Test]
    public void Sparse_files_are_refused_whichever_way_they_are_stored()
    {
        byte[] more = TarImage.Header("old", 512, 'S', magic: "ustar  \0");
        more[482] = 1;
        TarImage.Seal(more);
        byte[] map = new byte[512];
        map[504] = 1;
        byte[] archive = new TarImage()
            .AddRaw(more).AddRaw(map).AddRaw(new byte[512]).AddRaw(TestData.Random(512))
            .AddPax("GNU.sparse.major=1", "GNU.sparse.name=new", "GNU.sparse.realsize=100000")
            .Add("GNUSparseFile.1/new", new byte[1024])
            .Add("disk", Content)
            .Bytes;
        Assert.That(Refusal(archive, "old"), Does.Contain("'old' was stored as a sparse file"));
        Assert.That(Refusal(archive, "new"), Does.Contain("'new' was stored as a sparse file"));
        Assert.That(async () => await ContentAsync(archive, "disk"), Is.EqualTo(Content));
    }

    [Test]
    public void What_is_damaged_is_named()
    {
        byte[] archive = Archive();
        Assert.That(Refusal(archive[..^1530], "nothing"), Does.Contain("does not end inside the archive"));
        Assert.That(Refusal(TestData.Random(5000), "disk"), Is.EqualTo("this is not a tar archive"));
        Assert.That(Refusal([0x1F, 0x8B, .. new byte[1000]], "disk"), Does.Contain("is compressed"));
        Assert.That(Refusal([0xFD, .. "7zXZ"u8, .. new byte[1000]], "disk"), Does.Contain("is compressed"));
        Assert.That(Refusal(archive[..1000], "disk"), Does.Contain("ends inside a header"));
        archive[TarImage.Block] ^= 1;
        Assert.That(Refusal(archive, "folder/disk"), Does.Contain("damaged: there is no header at 512"));
        foreach (string record in new[] { "size=-1", "size=1x", "size=99999999999999999999", "noequals" })
        {
            Assert.That(Refusal(new TarImage().AddPax(record).Add("disk", Content).Bytes, "disk"), Does.Contain("the pax header at 512 cannot be read"));
        }
        foreach (string text in new[] { "5", "99 a=b\n", "2 a=b\n", "6 a=bc\n", "x a=b\n" })
        {
            byte[] pax = System.Text.Encoding.ASCII.GetBytes(text);
            Assert.That(Refusal(new TarImage().Add("pax", pax, 'x').Add("disk", Content).Bytes, "disk"), Does.Contain("cannot be read"), text);
        }
        Assert.That(
            Refusal(new TarImage().Add("pax", new byte[(1 << 20) + 1], 'x').Bytes, "disk"), Does.Contain("the attributes at 512 have 1048577 bytes"));
        Assert.That(Refusal(TarImage.Header("disk", long.MaxValue), "disk"), Does.Contain("does not end inside the archive"));
        byte[] negative = TarImage.Header("disk", long.MaxValue);
        negative[124] = 0xFF;
        TarImage.Seal(negative);
        Assert.That(Refusal(negative, "disk"), Is.EqualTo("this is not a tar archive"));
    }

    [Test]
    public async Task Any_damage_is_found_or_without_effect_and_ends_soon([Values(1, 2, 3)] int seed)
    {
        byte[] archive = new TarImage().Add("././@LongLink", "a/long/name\0"u8, 'L').Add("a", Content).AddPax("path=b", "size=3000").Add("x", Content)
            .Add("disk", Content).End().Bytes;
        int[] places = [.. Enumerable.Range(0, archive.Length).Where(at => at < 1536 || archive.AsSpan(at, 1).IndexOf((byte)0) < 0)];
        var random = new Random(seed);
        for (int i = 0; i < 400; i++)
        {
            byte[] damaged = (byte[])archive.Clone();
            int at = places[random.Next(places.Length)];
            damaged[at] ^= (byte)(1 << random.Next(8));
            try
            {
                byte[] read = await ContentAsync(damaged, "disk");
                Assert.That(read, Has.Length.EqualTo(Content.Length), $"seed {seed}, byte {at}");
            }
            catch (NbdException e)
            {
                Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument), $"seed {seed}, byte {at}");
            }
        }
    }

    [Test]
    public async Task A_search_can_be_given_up()
    {
        using var source = new CancellationTokenSource();
        var plugin = new ModelPlugin(Archive()) { Before = _ => source.CancelAsync() };
        await using NbdBackend chain = Chain(plugin, "nothing");
        Assert.That(async () => await chain.OpenAsync(cancellationToken: source.Token), Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public void Settings_are_checked()
    {
        Assert.That(() => new TarFilter { TarEntry = "" }, Throws.ArgumentException);
        Assert.That(() => new TarFilter { TarEntry = "a\0b" }, Throws.ArgumentException);
        Assert.That(() => new TarFilter { TarEntry = "a", Limit = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        var parameters = new NbdParameters("tar", [new("tar-entry", "disk"), new("tar-limit", "1M")]);
        Assert.That(((TarFilter)TarFilter.Entry.Create(parameters)).Limit, Is.EqualTo(1 << 20));
        parameters = new NbdParameters("tar", [new("tar-entry", "disk"), new("tar-limit", "0")]);
        Assert.That(((TarFilter)TarFilter.Entry.Create(parameters)).Limit, Is.Null);
    }
}
