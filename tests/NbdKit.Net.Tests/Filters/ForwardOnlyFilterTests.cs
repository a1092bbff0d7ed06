using NbdKit.Filters;
using NbdKit.Filters.Sequential;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class ForwardOnlyFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly byte[] _content = [.. TestData.Random(100_000), .. new byte[200_000], .. TestData.Random(700_001, 2)];

    /// <summary>A source that fails every read that is not where the one before ended.</summary>
    private TestPlugin Tape(string name = "")
    {
        long position = 0;
        var export = new TestExport(name) { Data = _content, Description = "a tape" };
        export.Before = call =>
        {
            if (call.Op == PluginOp.Read)
            {
                if (call.Offset != Interlocked.Read(ref position))
                {
                    throw new NbdException(NbdError.InvalidArgument, $"a tape at {position} cannot go to {call.Offset}");
                }
                Interlocked.Add(ref position, call.Length);
            }
            return default;
        };
        return new TestPlugin(export);
    }

    private static NbdBackend Chain(INbdPlugin plugin, long readSize = 4096)
        => NbdBackend.Compose(plugin, new ForwardOnlyFilter { ReadSize = readSize });

    [TestCase(4096)]
    [TestCase(65_536)]
    [TestCase(4 << 20)]
    public async Task Random_reads_become_sequential_ones(long readSize)
    {
        TestPlugin plugin = Tape();
        await using NbdBackend chain = Chain(plugin, readSize);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.Size, disk.Info.Description), Is.EqualTo((_content.Length, "a tape")));
        Assert.That((disk.Info.CanWrite, disk.Info.CanMultiConn, disk.Info.CanExtents), Is.EqualTo((false, true, true)));
        var random = new Random(3);
        for (int i = 0; i < 50; i++)
        {
            int length = random.Next(1, 30_000);
            int offset = random.Next(_content.Length - length + 1);
            Assert.That((await TestData.ReadAsync(disk, offset, length)).AsSpan().SequenceEqual(_content.AsSpan(offset, length)), $"{offset}+{length}");
        }
        Assert.That((await TestData.ReadAsync(disk, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(plugin.Calls.Sum(call => call.Length), Is.EqualTo(_content.Length), "every byte once");
        Assert.That(plugin.Opened, Is.EqualTo(1));
        Assert.That(SpinWait.SpinUntil(() => plugin.Closed == 1, TimeSpan.FromSeconds(10)), "closed when all was read");
    }

    [Test]
    public async Task No_more_is_read_than_was_asked_for()
    {
        TestPlugin plugin = Tape();
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(plugin.Calls, Is.Empty);
        await TestData.ReadAsync(disk, 5000, 100);
        await TestData.ReadAsync(disk, 0, 8192);
        Assert.That(plugin.Calls.Select(call => (call.Offset, call.Length)), Is.EqualTo(new[] { (0L, 4096L), (4096L, 4096L) }));
    }

    [Test]
    public async Task All_connections_share_the_place_where_the_source_is()
    {
        TestPlugin plugin = Tape();
        await using NbdBackend chain = Chain(plugin);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(async i =>
        {
            await using NextContext disk = await chain.OpenAsync();
            var random = new Random(i);
            for (int j = 0; j < 20; j++)
            {
                int offset = random.Next(_content.Length - 5000);
                Assert.That((await TestData.ReadAsync(disk, offset, 5000)).AsSpan().SequenceEqual(_content.AsSpan(offset, 5000)));
            }
        }));
        // It is where it was when everybody had left.
        await using NextContext again = await chain.OpenAsync();
        Assert.That((await TestData.ReadAsync(again, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(plugin.Opened, Is.EqualTo(1));
        Assert.That(plugin.Calls.Sum(call => call.Length), Is.EqualTo(_content.Length));
    }

    [Test]
    public async Task A_client_that_gives_up_skips_nothing()
    {
        TestPlugin plugin = Tape();
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Func<PluginCall, ValueTask> tape = plugin.Export.Before!;
        plugin.Export.Before = async call =>
        {
            await tape(call);
            await go.Task.WaitAsync(call.CancellationToken);
        };
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        using var leaving = new CancellationTokenSource();
        Task read = disk.ReadAsync(new byte[10_000], 0, leaving.Token).AsTask();
        await leaving.CancelAsync();
        Assert.That(async () => await read, Throws.InstanceOf<OperationCanceledException>());
        go.SetResult();
        Assert.That((await TestData.ReadAsync(disk, 0, _content.Length)).AsSpan().SequenceEqual(_content));
    }

    [Test]
    public async Task A_read_that_failed_is_repeated_where_it_failed()
    {
        var plugin = new TestPlugin(new TestExport { Data = _content });
        bool fails = true;
        plugin.Export.Before = call => call.Offset >= 8192 && fails ? throw new NbdException(NbdError.IoError, "torn") : default;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 2; i++)
        {
            NbdException e = TestData.Failure(async () => await TestData.ReadAsync(disk, 20_000, 10));
            Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.IoError, "torn")));
            Assert.That(await TestData.ReadAsync(disk, 8000, 100), Is.EqualTo(_content[8000..8100]), "what was read stays");
        }
        fails = false;
        Assert.That((await TestData.ReadAsync(disk, 0, _content.Length)).AsSpan().SequenceEqual(_content));
        Assert.That(plugin.Calls.Select(call => call.Offset).Take(5), Is.EqualTo(new[] { 0L, 4096, 8192, 8192, 8192 }));
    }

    [Test]
    public async Task What_there_was_no_space_for_is_not_read_again()
    {
        TestPlugin plugin = Tape();
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext next = await chain.OpenAsync();
        await using var source = new ForwardSource(next, new ScratchStore(InMemory: true, "", Limit: 10_000), 4096);
        for (int i = 0; i < 3; i++)
        {
            Assert.That(TestData.Failure(async () => await source.ReachAsync(12_000, None)).Error, Is.EqualTo(NbdError.NoSpace));
        }
        Assert.That(source.Disk.Length, Is.EqualTo(8192));
        Assert.That(plugin.Calls.Select(call => call.Offset), Is.EqualTo(new[] { 0L, 4096, 8192 }));
    }

    [Test]
    public async Task A_prefetch_reads_and_does_not_wait()
    {
        TestPlugin plugin = Tape();
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Func<PluginCall, ValueTask> tape = plugin.Export.Before!;
        plugin.Export.Before = async call =>
        {
            await tape(call);
            await go.Task;
        };
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(0, 10_000, None);
        Task<byte[]> read = TestData.ReadAsync(disk, 10_000, 10);
        Assert.That(read.IsCompleted, Is.False);
        go.SetResult();
        Assert.That(await read, Is.EqualTo(_content[10_000..10_010]));
    }

    [Test]
    public async Task Extents_know_holes_in_what_was_read()
    {
        await using NbdBackend chain = Chain(Tape(), 65_536);
        await using NextContext disk = await chain.OpenAsync();
        ExtentList before = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, None);
        Assert.That(before, Is.EqualTo(new[] { new Extent(0, _content.Length, ExtentStatus.Data) }));
        await TestData.ReadAsync(disk, 250_000, 1);
        ExtentList after = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, None);
        Assert.That(after, Is.EqualTo(new[]
        {
            new Extent(0, 131_072, ExtentStatus.Data),
            new Extent(131_072, 131_072, ExtentStatus.Hole | ExtentStatus.Zero),
            new Extent(262_144, _content.Length - 262_144, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task A_layer_that_takes_one_connection_serves_one_export()
    {
        var plugin = new TestPlugin(new TestExport("a"), new TestExport("b")) { ThreadModel = ThreadModel.SerializeConnections };
        plugin.OnOpen = (context, _) => context.ExportName == "c" ? throw new NbdException(NbdError.IoError, "no tape") : default;
        await using NbdBackend chain = Chain(plugin);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("c")).Message, Is.EqualTo("no tape"));
        await using NextContext one = await chain.OpenAsync("a");
        await using NextContext two = await chain.OpenAsync("a");
        NbdException e = TestData.Failure(async () => await chain.OpenAsync("b"));
        Assert.That(e.Message, Is.EqualTo("test takes one connection, which export 'a' has"));
        await one.DisposeAsync();
        Assert.That((await TestData.ReadAsync(two, 0, 10)), Is.EqualTo(plugin.Data[..10]));
    }

    [Test]
    public async Task A_chain_that_stops_ends_the_reading()
    {
        TestPlugin plugin = Tape();
        plugin.Export.Before = call => new(Task.Delay(Timeout.Infinite, call.CancellationToken));
        NbdBackend chain = Chain(plugin);
        NextContext disk = await chain.OpenAsync();
        using var leaving = new CancellationTokenSource();
        Task read = disk.ReadAsync(new byte[1], 0, leaving.Token).AsTask();
        await leaving.CancelAsync();
        Assert.That(async () => await read, Throws.InstanceOf<OperationCanceledException>());
        await disk.DisposeAsync();
        await chain.DisposeAsync();
        Assert.That(plugin.Closed, Is.EqualTo(1));
    }

    [TestCase(0)]
    [TestCase(2048)]
    [TestCase(5000)]
    [TestCase(128 << 20)]
    public void A_size_of_reads_that_cannot_be_is_an_error(long size)
        => Assert.That(() => new ForwardOnlyFilter { ReadSize = size }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test]
    public async Task What_was_read_before_a_failure_is_not_read_again_if_reads_are_limited()
    {
        var plugin = new TestPlugin(new TestExport
        {
            Data = _content,
            Configure = info => info with { BlockSize = new BlockSize(512, 4096, 8192) },
        });
        bool fails = true;
        plugin.Export.Before = call => call.Offset >= 16_384 && fails ? throw new NbdException(NbdError.IoError, "torn") : default;
        await using NbdBackend chain = Chain(plugin, 65_536);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(TestData.Failure(async () => await TestData.ReadAsync(disk, 20_000, 10)).Message, Is.EqualTo("torn"));
        fails = false;
        Assert.That(await TestData.ReadAsync(disk, 20_000, 10), Is.EqualTo(_content[20_000..20_010]));
        // What failed may be tried any number of times, what did not fail once.
        Assert.That(plugin.Calls.Select(call => call.Offset).Where(offset => offset < 16_384), Is.EqualTo(new[] { 0L, 8192 }));
    }

    [Test]
    public async Task Nothing_is_said_of_bytes_that_came_after_the_question([Values] bool inMemory)
    {
        await using var disk = new ScratchDisk(new ScratchStore(inMemory, Path.GetTempPath(), long.MaxValue));
        await disk.AppendAsync(new byte[200_000], None);
        var extents = new ExtentList(0, 1 << 20);
        await disk.ExtentsAsync(0, 100_000, RequestFlags.None, extents, None);
        Assert.That(extents.Covered, Is.EqualTo(100_000));
    }

    [Test]
    public async Task Stopping_does_not_wait_for_all_that_was_asked_for()
    {
        var plugin = new TestPlugin(new TestExport { Data = _content });
        var gate = new Gate();
        plugin.Export.Before = _ => gate.PassAsync();
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext next = await chain.OpenAsync();
        var source = new ForwardSource(next, new ScratchStore(InMemory: true, "", long.MaxValue), 4096);
        Task reach = source.ReachAsync(_content.Length, None).AsTask();
        await gate.ArrivedAsync();
        Task stopping = source.DisposeAsync().AsTask();
        gate.Open();
        await stopping.WaitAsync(WireClient.Deadline);
        Assert.That(TestData.Failure(() => reach).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(Assert.Throws<NbdException>(() => source.Begin(_content.Length))!.Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(plugin.Calls, Has.Count.EqualTo(1));
    }

    [Test]
    public async Task What_nobody_waits_for_any_more_is_given_up_if_its_place_is_needed()
    {
        var plugin = new TestPlugin(new TestExport("a"), new TestExport("b"))
        {
            OnOpen = (context, token) => context.ExportName == "a" ? new(Task.Delay(Timeout.Infinite, token)) : default,
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ForwardOnlyFilter { MaxExports = 1 });
        await chain.StartAsync();
        using var leaving = new CancellationTokenSource();
        Task<NextContext> first = chain.OpenAsync("a", cancellationToken: leaving.Token).AsTask();
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("b")).Error, Is.EqualTo(NbdError.NoSpace), "somebody waits");
        await leaving.CancelAsync();
        Assert.That(async () => await first.Soon(), Throws.InstanceOf<OperationCanceledException>());
        await using NextContext disk = await chain.OpenAsync("b").Soon();
    }

    [Test]
    public async Task A_layer_of_one_connection_gets_the_next_export_when_the_last_one_made_room()
    {
        var plugin = new TestPlugin(new TestExport("a"), new TestExport("b")) { ThreadModel = ThreadModel.SerializeConnections };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ForwardOnlyFilter { MaxExports = 1 });
        for (int i = 0; i < 3; i++)
        {
            await (await chain.OpenAsync("a").Soon()).DisposeAsync();
            await (await chain.OpenAsync("b").Soon()).DisposeAsync();
        }
        Assert.That(plugin.Opened, Is.EqualTo(6));
    }

    [Test]
    public async Task The_number_of_exports_is_limited()
    {
        var plugin = new TestPlugin(new TestExport("a"), new TestExport("b"), new TestExport("c"));
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ForwardOnlyFilter { MaxExports = 2 });
        // Names that the layer below refuses take no place.
        for (int i = 0; i < 5; i++)
        {
            TestData.Failure(async () => await chain.OpenAsync($"x{i}"));
        }
        NextContext a = await chain.OpenAsync("a");
        NextContext b = await chain.OpenAsync("b");
        NbdException e = TestData.Failure(async () => await chain.OpenAsync("c"));
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.NoSpace, "forward-only: there are already 2 exports in use, which is as many as may be kept")));
        await (await chain.OpenAsync("a")).DisposeAsync();
        // The one that nobody has used for longest makes room.
        await b.DisposeAsync();
        await a.DisposeAsync();
        await (await chain.OpenAsync("a")).DisposeAsync();
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((2, 0)));
        await using NextContext c = await chain.OpenAsync("c");
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((3, 1)));
        await using NextContext again = await chain.OpenAsync("a");
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((3, 1)), "a is the one that stayed");
        TestData.Failure(async () => await chain.OpenAsync("b"));
        Assert.That(() => new ForwardOnlyFilter { MaxExports = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }
}
