using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class GzipFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly byte[] _content = [.. TestData.Random(100_000), .. new byte[200_000], .. TestData.Random(2_000_001, 2)];

    private static TestPlugin Plugin(params byte[][] members)
        => new(new TestExport { Data = [.. members.SelectMany(m => m)], Description = "packed" });

    private static async Task<NbdException> RefusalAsync(byte[] disk, GzipFilter? filter = null)
    {
        TestPlugin plugin = Plugin(disk);
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter ?? new GzipFilter());
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((1, 1)), "nothing stays open");
        return e;
    }

    [Test]
    public async Task All_members_are_decompressed_and_what_follows_them_is_ignored([Values] GzipStore store, [Values(0, 1, 511)] int padding)
    {
        TestPlugin plugin = Plugin(
            CompressingFilter.Compress(_content.AsSpan(0, 1_000_000)), CompressingFilter.Compress([]),
            CompressingFilter.Compress(_content.AsSpan(1_000_000)), new byte[padding]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter { Store = store });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(_content.Length));
        Assert.That((disk.Info.CanWrite, disk.Info.CanMultiConn, disk.Info.Description), Is.EqualTo((false, true, "packed")));
        Assert.That((await TestData.ReadAsync(disk, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(await TestData.ReadAsync(disk, 99_999, 2), Is.EqualTo(_content[99_999..100_001]));
        await disk.CacheAsync(0, 100, None);
    }

    [Test]
    public async Task Long_runs_of_zeroes_are_holes([Values] GzipStore store)
    {
        await using NbdBackend chain = NbdBackend.Compose(Plugin(CompressingFilter.Compress(_content)), new GzipFilter { Store = store });
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, None);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 131_072, ExtentStatus.Data),
            new Extent(131_072, 163_840, ExtentStatus.Hole | ExtentStatus.Zero),
            new Extent(294_912, _content.Length - 294_912, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task A_disk_of_nothing_but_zeroes_keeps_its_size([Values] GzipStore store, [Values(0, 1, 5_000_000)] int size)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            Plugin(CompressingFilter.Compress(new byte[size])), new GzipFilter { Store = store });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(size));
        if (size > 0)
        {
            Assert.That((await TestData.ReadAsync(disk, 0, size)).AsSpan().ContainsAnyExcept((byte)0), Is.False);
        }
    }

    [Test]
    public async Task An_export_is_decompressed_once_for_all_connections()
    {
        var plugin = new TestPlugin(
            new TestExport("a") { Data = CompressingFilter.Compress(_content) }, new TestExport("b") { Data = CompressingFilter.Compress(new byte[10]) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        NextContext[] disks = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => chain.OpenAsync(i % 2 == 0 ? "a" : "b").AsTask()));
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((2, 2)), "closed as soon as nothing is needed any more");
        Assert.That(disks.Select(disk => disk.Info.Size), Is.EqualTo(Enumerable.Range(0, 8).Select(i => i % 2 == 0 ? _content.Length : 10L)));
        foreach (NextContext disk in disks)
        {
            await disk.DisposeAsync();
        }
        int calls = plugin.Calls.Count;
        await using NextContext again = await chain.OpenAsync("a");
        Assert.That((await TestData.ReadAsync(again, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(plugin.Calls, Has.Count.EqualTo(calls));
    }

    [Test]
    public async Task A_client_that_leaves_does_not_spoil_it_for_those_who_wait()
    {
        TestPlugin plugin = Plugin(CompressingFilter.Compress(_content));
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        plugin.Export.Before = call => call.Op == PluginOp.Read ? new(go.Task.WaitAsync(call.CancellationToken)) : default;
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        using var leaving = new CancellationTokenSource();
        Task<NextContext> first = chain.OpenAsync(cancellationToken: leaving.Token).AsTask();
        Task<NextContext> second = chain.OpenAsync().AsTask();
        await leaving.CancelAsync();
        Assert.That(async () => await first, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(second.IsCompleted, Is.False);
        go.SetResult();
        await using NextContext disk = await second;
        Assert.That((await TestData.ReadAsync(disk, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(plugin.Opened, Is.EqualTo(1));
    }

    [Test]
    public async Task What_failed_is_tried_again_by_the_next_client()
    {
        TestPlugin plugin = Plugin(CompressingFilter.Compress(_content));
        plugin.Export.Before = _ => throw new NbdException(NbdError.IoError, "the tape is stuck");
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        for (int i = 0; i < 2; i++)
        {
            NbdException e = TestData.Failure(async () => await chain.OpenAsync());
            Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.IoError, "the tape is stuck")));
        }
        plugin.Export.Before = null;
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((3, 3)));
    }

    [Test]
    public async Task A_chain_that_stops_ends_the_decompression()
    {
        TestPlugin plugin = Plugin(CompressingFilter.Compress(_content));
        plugin.Export.Before = call => new(Task.Delay(Timeout.Infinite, call.CancellationToken));
        NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        Task<NextContext> waiting = chain.OpenAsync().AsTask();
        await chain.DisposeAsync();
        Assert.That(async () => await waiting, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(plugin.Closed, Is.EqualTo(plugin.Opened));
    }

    [Test]
    public async Task Over_a_layer_that_takes_one_connection_exports_are_decompressed_one_after_the_other()
    {
        int open = 0;
        int most = 0;
        var plugin = new TestPlugin(
            [.. Enumerable.Range(0, 4).Select(i => new TestExport($"{i}") { Data = CompressingFilter.Compress(new byte[i]) })])
        {
            ThreadModel = ThreadModel.SerializeConnections,
        };
        plugin.OnOpen = async (_, _) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref open) - plugin.Closed);
            await Task.Yield();
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        await Task.WhenAll(Enumerable.Range(0, 4).Select(async i =>
        {
            await using NextContext disk = await chain.OpenAsync($"{i}");
            Assert.That(disk.Info.Size, Is.EqualTo(i));
        }));
        Assert.That(most, Is.EqualTo(1));
    }

    [Test]
    public async Task What_is_not_gzip_is_refused([Values(0, 1, 2, 3, 1000)] int length)
    {
        byte[] almost = CompressingFilter.Compress(_content)[..Math.Min(length, 2)];
        NbdException e = await RefusalAsync([.. almost, .. new byte[length - almost.Length]]);
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.InvalidArgument, "the disk is not compressed with gzip")));
    }

    [Test]
    public async Task Damaged_data_is_refused([Values(5000, -8, -6, -4, -1)] int at)
    {
        byte[] packed = CompressingFilter.Compress(_content);
        packed[at < 0 ? packed.Length + at : at] ^= 0x10;
        NbdException e = await RefusalAsync(packed);
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(e.Message, Does.StartWith("the disk cannot be decompressed: its gzip data is damaged after "));
    }

    [Test]
    public async Task Data_that_ends_too_early_is_refused([Values(3, 10, 11, 1000, -100, -8, -4, -1)] int length, [Values] bool second)
    {
        byte[] packed = CompressingFilter.Compress(_content);
        byte[] cut = packed[..(length < 0 ? packed.Length + length : length)];
        NbdException e = await RefusalAsync(second ? [.. packed, .. cut] : cut);
        Assert.That(e.Message, Does.StartWith("the disk cannot be decompressed: its gzip data is damaged after "));
    }

    [Test]
    public async Task What_becomes_too_large_is_refused([Values] GzipStore store)
    {
        byte[] packed = CompressingFilter.Compress(new byte[50_000_000]);
        NbdException e = await RefusalAsync(packed, new GzipFilter { Store = store, MaxSize = 49_999_999 });
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.NoSpace, "there are more than the 49999999 bytes that may be kept")));
        await using NbdBackend chain = NbdBackend.Compose(Plugin(packed), new GzipFilter { Store = store, MaxSize = 50_000_000 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(50_000_000));
    }

    [Test]
    public async Task The_layer_below_is_read_in_blocks_that_it_takes()
    {
        byte[] packed = CompressingFilter.Compress(_content);
        var plugin = new ModelPlugin(packed, new NbdExportInfo { Size = 0, BlockSize = new BlockSize(4096, 65_536, 131_072) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(plugin.Offence, Is.Null);
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("", true) }));
        Assert.That(disk.Info.BlockSize.IsKnown, Is.False);
    }

    [Test]
    public void A_directory_that_is_not_there_is_an_error()
    {
        NbdBackend chain = NbdBackend.Compose(Plugin([]), new GzipFilter { Directory = "/nonexistent/place" });
        Assert.That(async () => await chain.OpenAsync(), Throws.InstanceOf<DirectoryNotFoundException>());
    }

    [Test]
    public void A_limit_below_one_byte_is_an_error()
        => Assert.That(() => new GzipFilter { MaxSize = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test]
    public async Task The_number_of_exports_is_limited()
    {
        var plugin = new TestPlugin(
            [.. Enumerable.Range(0, 66).Select(i => new TestExport($"{i}") { Data = CompressingFilter.Compress(new byte[10]) })]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new GzipFilter { Store = GzipStore.Memory });
        var used = new List<NextContext>();
        for (int i = 0; i < 64; i++)
        {
            used.Add(await chain.OpenAsync($"{i}"));
        }
        NbdException e = TestData.Failure(async () => await chain.OpenAsync("64"));
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.NoSpace, "gzip: there are already 64 exports in use, which is as many as may be kept")));
        await (await chain.OpenAsync("0")).DisposeAsync();
        Assert.That(plugin.Opened, Is.EqualTo(64));
        // What was left first makes room.
        await used[7].DisposeAsync();
        await used[5].DisposeAsync();
        await (await chain.OpenAsync("64")).DisposeAsync();
        Assert.That(plugin.Opened, Is.EqualTo(65));
        await (await chain.OpenAsync("5")).DisposeAsync();
        Assert.That(plugin.Opened, Is.EqualTo(65), "5 is there still");
        await (await chain.OpenAsync("7")).DisposeAsync();
        Assert.That(plugin.Opened, Is.EqualTo(66), "7 is not");
        foreach (NextContext disk in used)
        {
            await disk.DisposeAsync();
        }
        Assert.That(() => new GzipFilter { MaxExports = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }
}
