using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class Ext2FilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private Ext2Image _image = null!;

    /// <summary>An image of 256 KiB without checksums; tests patch copies of it.</summary>
    [OneTimeSetUp]
    public async Task MakeImage()
    {
        using var tree = new Ext2Tree(many: 0);
        _image = await Ext2Image.MakeAsync(tree, "-t ext4 -b 1024 -O ^has_journal,^metadata_csum,^uninit_bg,^resize_inode -N 32", "256K");
    }

    [OneTimeTearDown]
    public void RemoveImage() => _image?.Dispose();

    private byte[] Bytes() => File.ReadAllBytes(_image.Path);

    private TestPlugin Plugin(BlockSize blockSize = default, params string[] exports)
        => new([.. exports.DefaultIfEmpty("").Select(name => new TestExport(name)
        {
            Data = Bytes(),
            Configure = info => info with { BlockSize = blockSize },
        })])
        {
            DefaultExport = exports.FirstOrDefault(""),
        };

    private static NbdBackend Chain(INbdPlugin plugin, string? file = "/big")
        => NbdBackend.Compose(plugin, new Ext2Filter { File = file });

    [Test]
    public async Task A_file_that_is_chosen_by_parameter_is_every_export_of_the_layer_below()
    {
        TestPlugin plugin = Plugin(default, "a", "b");
        await using NbdBackend chain = Chain(plugin);
        foreach (string name in new[] { "", "a", "b" })
        {
            await using NextContext file = await chain.OpenAsync(name);
            Assert.That(file.Info.Size, Is.EqualTo(_image.Files["/big"].Length));
            Assert.That(await TestData.ReadAsync(file, 0, 20_001), Is.EqualTo(_image.Files["/big"]));
            Assert.That(plugin.Calls.Last().Export, Is.EqualTo(name.Length == 0 ? "a" : name));
        }
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, false, null, None);
        Assert.That(exports.Select(e => e.Name), Is.EqualTo(new[] { "a", "b" }));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("c")).Message, Does.Contain("no export 'c'"));
    }

    [Test]
    public async Task A_file_that_is_chosen_by_export_name_is_in_the_default_export_of_the_layer_below()
    {
        TestPlugin plugin = Plugin(default, "image", "other");
        await using NbdBackend chain = Chain(plugin, null);
        foreach (string name in new[] { "/big", "big", "absolute", "/folder/up" })
        {
            await using NextContext file = await chain.OpenAsync(name);
            Assert.That(await TestData.ReadAsync(file, 0, 20_001), Is.EqualTo(_image.Files["/big"]));
            Assert.That(plugin.Calls.Last().Export, Is.EqualTo("image"));
        }
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, false, null, None);
        Assert.That(exports, Is.Empty);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("")).Message, Does.Contain("no default export"));
    }

    [Test]
    public async Task Without_a_default_export_below_there_is_nowhere_to_look()
    {
        var plugin = new TestPlugin { DefaultExport = null };
        await using NbdBackend chain = Chain(plugin, null);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("/big")).Message, Does.Contain("test has no default export"));
    }

    [TestCase("/nothing", "there is no such file")]
    [TestCase("/folder", "it is a directory")]
    [TestCase("/", "it is a directory")]
    [TestCase("/folder/sub/..", "it is a directory")]
    [TestCase("/big/", "a part of the path is not a directory")]
    [TestCase("/big/.", "a part of the path is not a directory")]
    [TestCase("/big/more", "a part of the path is not a directory")]
    [TestCase("/loop", "too many symbolic links")]
    [TestCase("/dangling", "there is no such file")]
    [TestCase("/lost+found", "it is a directory")]
    public async Task What_is_not_a_file_is_refused(string path, string message)
    {
        TestPlugin plugin = Plugin();
        var filter = new Ext2Filter { File = path };
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.StartWith($"the file '{path}' cannot be served: ").And.Contain(message));
        Assert.That((plugin.Opened, plugin.Closed, filter.SharedCount), Is.EqualTo((1, 1, 0)), "nothing stays open");
    }

    [Test]
    public async Task A_path_of_many_parts_is_given_up()
    {
        await using NbdBackend chain = Chain(Plugin(), null);
        string path = string.Concat(Enumerable.Repeat("./", 1900)) + "big";
        await using (NextContext file = await chain.OpenAsync(path))
        {
            Assert.That(file.Info.Size, Is.EqualTo(20_001));
            Assert.That(file.Info.Description, Does.EndWith("of a file system"));
        }
        Assert.That(
            TestData.Failure(async () => await chain.OpenAsync(new string('/', 4096) + "big")).Message,
            Does.Contain("the path is too long"));
    }

    [Test]
    public async Task All_connections_share_one_context_that_closes_with_the_last()
    {
        TestPlugin plugin = Plugin();
        var filter = new Ext2Filter { File = null };
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        NextContext first = await chain.OpenAsync("/big");
        NextContext second = await chain.OpenAsync("/folder/sub/file");
        Assert.That((plugin.Opened, plugin.Closed, filter.SharedCount), Is.EqualTo((1, 0, 1)));
        Assert.That(first.Info.CanMultiConn);
        await first.DisposeAsync();
        Assert.That(await TestData.ReadAsync(second, 0, 5000), Is.EqualTo(_image.Files["/folder/sub/file"]));
        NextContext third = await chain.OpenAsync("/big", readOnly: true);
        Assert.That((plugin.Opened, third.Info.CanWrite), Is.EqualTo((2, false)), "read-only contexts are apart");
        await third.DisposeAsync();
        await second.DisposeAsync();
        Assert.That((plugin.Opened, plugin.Closed, filter.SharedCount), Is.EqualTo((2, 2, 0)));
        await using NextContext fourth = await chain.OpenAsync("/big");
        Assert.That(plugin.Opened, Is.EqualTo(3));
    }

    [Test]
    public async Task Clients_with_and_without_TLS_share_nothing()
    {
        TestPlugin plugin = Plugin();
        var filter = new Ext2Filter { File = "/big" };
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await chain.StartAsync();
        var files = new List<NextContext>();
        foreach (bool isTls in new[] { false, true, false, true })
        {
            var client = new NbdConnection(files.Count + 1, NbdPeer.Unknown, None, _ => { }, () => { }) { IsTls = isTls };
            files.Add(await chain.OpenEntryAsync(false, "", client, None));
            await files[^1].PrepareAsync(None);
        }
        Assert.That((plugin.Opened, filter.SharedCount), Is.EqualTo((2, 2)));
        foreach (NextContext file in files)
        {
            await file.DisposeAsync();
        }
        Assert.That((plugin.Closed, filter.SharedCount), Is.EqualTo((2, 0)));
    }

    [Test]
    public async Task Many_who_open_and_close_at_once_never_open_the_layer_below_twice()
    {
        int open = 0;
        int most = 0;
        TestPlugin plugin = Plugin();
        plugin.OnOpen = async (_, _) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref open) - plugin.Closed);
            await Task.Yield();
        };
        var filter = new Ext2Filter { File = "/big" };
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await chain.StartAsync();
        await Task.WhenAll(Enumerable.Range(0, 8).Select(worker => Task.Run(async () =>
        {
            for (int i = 0; i < 20; i++)
            {
                await using NextContext file = await chain.OpenAsync();
                byte[] read = await TestData.ReadAsync(file, worker * 1000, 1000);
                Assert.That(read.AsSpan().SequenceEqual(_image.Files["/big"].AsSpan(worker * 1000, 1000)));
            }
        })));
        Assert.That((most, plugin.Opened - plugin.Closed, filter.SharedCount), Is.EqualTo((1, 0, 0)));
    }

    [Test]
    public async Task Who_gives_up_while_the_image_opens_does_not_spoil_it_for_the_next()
    {
        var gate = new Gate();
        TestPlugin plugin = Plugin();
        plugin.OnOpen = (_, token) => gate.PassAsync(token);
        await using NbdBackend chain = Chain(plugin);
        await chain.StartAsync();
        using var cancel = new CancellationTokenSource();
        Task<NextContext> first = chain.OpenAsync(cancellationToken: cancel.Token).AsTask();
        await gate.ArrivedAsync();
        Task<NextContext> second = chain.OpenAsync().AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await first.Soon(), Throws.InstanceOf<OperationCanceledException>());
        gate.Open();
        await using NextContext file = await second.Soon();
        Assert.That(file.Info.Size, Is.EqualTo(20_001));
    }

    [TestCase(512, 65_536)]
    [TestCase(4096, 4096)]
    [TestCase(65_536, 65_536)]
    public async Task Requests_of_any_alignment_become_ones_that_the_layer_below_takes(int minimum, int maximum)
    {
        TestPlugin plugin = Plugin(new BlockSize(minimum, minimum, maximum));
        plugin.Export.Before = async call =>
        {
            bool aligned = call.Op is PluginOp.Flush || (call.Offset % minimum == 0 && call.Length % minimum == 0);
            Assert.That(aligned && (call.Length <= maximum || call.Op is not (PluginOp.Read or PluginOp.Write)), call.ToString());
            await Task.Yield();
        };
        byte[] before = Bytes();
        byte[] expected = (byte[])_image.Files["/big"].Clone();
        await using (NbdBackend chain = Chain(plugin))
        {
            await using NextContext file = await chain.OpenAsync();
            Assert.That(file.Info.BlockSize, Is.EqualTo(new BlockSize(minimum, minimum, maximum)));
            var random = new Random(minimum);
            await Task.WhenAll(Enumerable.Range(0, 8).Select(worker => ChangeAsync(file, worker, new Random(random.Next()), expected)));
            await file.TrimAsync(0, 1, RequestFlags.None, None);
            await file.CacheAsync(1, 20_000, None);
            Assert.That(await TestData.ReadAsync(file, 0, expected.Length), Is.EqualTo(expected));
        }
        // Only the content of the file has changed, wherever that is.
        int changed = Enumerable.Range(0, before.Length).Count(i => before[i] != plugin.Data[i]);
        int wanted = Enumerable.Range(0, expected.Length).Count(i => expected[i] != _image.Files["/big"][i]);
        Assert.That(changed, Is.EqualTo(wanted));
    }

    // Each worker has a part of the file for itself; the parts end inside blocks.
    private static async Task ChangeAsync(NextContext file, int worker, Random random, byte[] expected)
    {
        await Task.Yield();
        int start = worker * 2500;
        int end = worker == 7 ? expected.Length : start + 2500;
        for (int i = 0; i < 40; i++)
        {
            int offset = random.Next(start, end);
            byte[] data = TestData.Random(random.Next(1, end - offset + 1), random.Next());
            if (i % 3 == 0)
            {
                await file.ZeroAsync(offset, data.Length, RequestFlags.Fua, None);
                data.AsSpan().Clear();
            }
            else
            {
                await file.WriteAsync(data, offset, i % 3 == 1 ? RequestFlags.Fua : RequestFlags.None, None);
            }
            data.CopyTo(expected.AsSpan(offset));
        }
    }

    [Test]
    public async Task Blocks_that_follow_each_other_are_one_call_below()
    {
        string[] places = await _image.DebugAsync([.. Enumerable.Range(0, 20).Select(block => $"bmap /big {block}")]);
        var runs = new List<(long Offset, long Length)>();
        foreach (long place in places.Select(place => long.Parse(place) * 1024))
        {
            if (runs.Count > 0 && runs[^1].Offset + runs[^1].Length == place)
            {
                runs[^1] = runs[^1] with { Length = runs[^1].Length + 1024 };
            }
            else
            {
                runs.Add((place, 1024));
            }
        }
        runs[^1] = runs[^1] with { Length = runs[^1].Length - (20 * 1024) + 20_001 };
        Assert.That(runs, Has.Count.LessThan(5));
        TestPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin);
        await using NextContext file = await chain.OpenAsync();
        plugin.Calls.Clear();
        await file.ReadAsync(new byte[20_001], 0, None);
        await file.WriteAsync(_image.Files["/big"], 0, RequestFlags.Fua, None);
        await file.FlushAsync(None);
        Assert.That(
            plugin.Calls.Select(call => (call.Op, call.Offset, call.Length, call.Flags)),
            Is.EqualTo(runs.Select(run => (PluginOp.Read, run.Offset, run.Length, RequestFlags.None))
                .Concat(runs.Select(run => (PluginOp.Write, run.Offset, run.Length, RequestFlags.Fua)))
                .Append((PluginOp.Flush, 0, 0, RequestFlags.None))));
    }

    [TestCase("ro_compat read-only", 0x65, 0x10)]
    [TestCase("ro_compat shared_blocks", 0x65, 0x40)]
    [TestCase("unknown ro_compat", 0x67, 0x80)]
    [TestCase("errors", 0x3A, 0x02)]
    [TestCase("mmp", 0x61, 0x01)]
    public async Task A_file_system_that_forbids_writing_is_read_only(string what, int offset, byte bits)
    {
        TestPlugin plugin = Plugin();
        plugin.Data[1024 + offset] |= bits;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext file = await chain.OpenAsync();
        Assert.That(file.Info.CanWrite, Is.False, what);
        Assert.That(await TestData.ReadAsync(file, 0, 20_001), Is.EqualTo(_image.Files["/big"]));
    }

    [Test]
    public async Task A_file_system_that_was_not_unmounted_cleanly_is_read_only()
    {
        TestPlugin plugin = Plugin();
        plugin.Data[1024 + 0x3A] = 0;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext file = await chain.OpenAsync();
        Assert.That(file.Info.CanWrite, Is.False);
    }

    [TestCase(0x10, 0x00)]
    [TestCase(0x20, 0x00)]
    [TestCase(0x00, 0x10)]
    public async Task A_file_that_is_immutable_append_only_or_has_verity_is_read_only(byte low, byte high)
    {
        TestPlugin plugin = Plugin();
        long inode = await _image.InodeOffsetAsync("/big");
        plugin.Data[inode + 0x20] |= low;
        plugin.Data[inode + 0x22] |= high;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext file = await chain.OpenAsync();
        Assert.That((file.Info.CanWrite, file.Info.Size), Is.EqualTo((false, 20_001L)));
    }

    [Test]
    public async Task A_file_in_its_inode_is_read_only()
    {
        using var tree = new Ext2Tree(many: 0);
        using Ext2Image image = await Ext2Image.MakeAsync(tree, "-t ext4 -b 1024 -O inline_data,^has_journal,^resize_inode -I 256 -N 32", "256K");
        var plugin = new TestPlugin(new TestExport { Data = await File.ReadAllBytesAsync(image.Path) });
        await using NbdBackend chain = Chain(plugin, null);
        foreach (string name in new[] { "/tiny", "/medium" })
        {
            await using NextContext file = await chain.OpenAsync(name);
            byte[] expected = image.Files[name];
            Assert.That((file.Info.CanWrite, file.Info.Size), Is.EqualTo((false, (long)expected.Length)));
            Assert.That(await TestData.ReadAsync(file, 3, expected.Length - 3), Is.EqualTo(expected[3..]));
            ExtentList extents = await file.ExtentsFullAsync(0, expected.Length, ExtentList.BaseAllocation, None);
            Assert.That(extents, Is.EqualTo(new[] { new Extent(0, expected.Length, ExtentStatus.Data) }));
            await file.CacheAsync(0, 1, None);
        }
        await using NextContext big = await chain.OpenAsync("/big");
        Assert.That(big.Info.CanWrite);
    }

    [Test]
    public async Task What_the_layer_below_cannot_is_not_offered()
    {
        var export = new TestExport
        {
            Data = Bytes(),
            Configure = info => info with { CanZero = Support.None, CanTrim = false, CanFua = Support.Emulate, CanMultiConn = false, CanCache = Support.None },
        };
        await using NbdBackend chain = Chain(new TestPlugin(export));
        await using NextContext file = await chain.OpenAsync();
        Assert.That(
            (file.Info.CanZero, file.Info.CanTrim, file.Info.CanFua, file.Info.CanCache, file.Info.CanFastZero),
            Is.EqualTo((Support.None, false, Support.Emulate, Support.None, false)));
        await file.WriteAsync(new byte[10], 5, RequestFlags.Fua, None);
        Assert.That(await TestData.ReadAsync(file, 5, 10), Is.EqualTo(new byte[10]));
    }

    [Test]
    public void Parameters_are_those_of_nbdkit()
    {
        var catalogue = new NbdCatalogue();
        Assert.That(catalogue.Filter("ext2").Parameters.Select(p => p.Name), Is.EqualTo(new[] { "ext2file" }));
        Assert.That(Create("/disk.img").File, Is.EqualTo("/disk.img"));
        Assert.That(Create("exportname").File, Is.Null);
        Assert.That(() => Create("disk.img"), Throws.ArgumentException.With.Message.Contains("begin with a slash"));
        Assert.That(() => Create(""), Throws.ArgumentException);
        Assert.That(() => new Ext2Filter { File = "/a\0b" }, Throws.ArgumentException);
        Assert.That(
            () => catalogue.Compose("null", ["ext2"], []), Throws.ArgumentException.With.Message.Contains("ext2file= is required"));

        static Ext2Filter Create(string file)
            => (Ext2Filter)Ext2Filter.Entry.Create(new NbdParameters("ext2", [new("ext2file", file)]));
    }
}
