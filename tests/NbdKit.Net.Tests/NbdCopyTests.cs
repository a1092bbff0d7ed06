using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdCopyTests
{
    [Test]
    public async Task Holes_are_neither_read_nor_written()
    {
        byte[] content = new byte[1 << 20];
        TestData.Random(8192).CopyTo(content, 300_000 & -4096);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[1 << 20]);

        NbdCopyResult result = await NbdCopy.CopyAsync(
            source.Source, destination.Destination, new NbdCopyOptions { DestinationIsZero = true });

        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
        Assert.That(source.Plugin.TakeCalls().Where(call => call.StartsWith("read")), Is.EqualTo(new[] { "read 299008+8192" }));
        Assert.That(destination.Plugin.TakeCalls(), Is.EqualTo(new[] { "write 299008+8192", "flush" }));
        Assert.That((result.BytesRead, result.BytesWritten, result.BytesZeroed, result.Size), Is.EqualTo((8192, 8192, 0, 1 << 20)));
    }

    [Test]
    public async Task Holes_become_holes_where_the_destination_is_not_zero()
    {
        byte[] content = new byte[1 << 20];
        TestData.Random(8192).CopyTo(content, 299_008);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(TestData.Random(1 << 20, 2));

        NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination);

        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
        Assert.That(
            destination.Plugin.TakeCalls().Order(StringComparer.Ordinal),
            Is.EqualTo(new[]
            {
                "flush", "write 299008+8192", "zero 0+299008 MayTrim, FastZero", "zero 307200+741376 MayTrim, FastZero",
            }));
        Assert.That(result.BytesZeroed, Is.EqualTo((1 << 20) - 8192));
    }

    [Test]
    public async Task Zeroes_in_data_are_found_and_the_rest_is_written()
    {
        byte[] content = TestData.Random(65_536, 3);
        content.AsSpan(20_000, 20_000).Clear();
        var info = ModelPlugin.Everything with { CanExtents = false };
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content, info));
        await using CopyDisk destination = await CopyDisk.OpenAsync(TestData.Random(65_536, 4));

        await NbdCopy.CopyAsync(source.Source, destination.Destination);

        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
        Assert.That(destination.Plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "write 0+20480", "zero 20480+16384 MayTrim, FastZero", "write 36864+28672", "flush",
        }));
    }

    [TestCase(0)]
    [TestCase(1 << 20)]
    public async Task Without_a_sparse_size_or_with_a_large_one_data_is_written_as_it_is(int sparseSize)
    {
        byte[] content = TestData.Random(65_536, 3);
        content.AsSpan(20_000, 20_000).Clear();
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(TestData.Random(65_536, 4));

        await NbdCopy.CopyAsync(
            source.Source, destination.Destination, new NbdCopyOptions { SparseSize = sparseSize, UseExtents = false });

        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
        Assert.That(destination.Plugin.TakeCalls(), Is.EqualTo(new[] { "write 0+65536", "flush" }));
    }

    [Test]
    public async Task Allocated_asks_for_zeroes_that_keep_their_space()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync(new byte[65_536]);
        await using CopyDisk destination = await CopyDisk.OpenAsync(TestData.Random(65_536, 4));

        await NbdCopy.CopyAsync(source.Source, destination.Destination, new NbdCopyOptions { Allocated = true });

        Assert.That(destination.Plugin.Data, Is.EqualTo(new byte[65_536]));
        Assert.That(destination.Plugin.TakeCalls(), Is.EqualTo(new[] { "zero 0+65536 FastZero", "flush" }));
    }

    [Test]
    public async Task A_destination_that_declines_fast_zeroes_is_not_asked_for_ever()
    {
        byte[] content = SparseData.Random(400_000, new Random(8), 9000);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(
            new ModelPlugin(TestData.Random(400_000, 4)) { DeclinesZero = true });

        await NbdCopy.CopyAsync(
            source.Source, destination.Destination, new NbdCopyOptions { MaxRequestsInFlight = 1, RequestSize = 8192 });

        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
        Assert.That(
            destination.Plugin.TakeCalls().Count(call => call.Contains("FastZero", StringComparison.Ordinal)), Is.EqualTo(4));
    }

    [Test]
    public async Task What_the_destination_has_beyond_the_source_is_left_alone()
    {
        byte[] before = TestData.Random(70_000, 4);
        byte[] content = TestData.Random(65_537, 5);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        var info = ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) };
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(before, info));

        await NbdCopy.CopyAsync(source.Source, destination.Destination, new NbdCopyOptions { Verify = true });

        Assert.That(destination.Plugin.Offence, Is.Null);
        Assert.That(destination.Plugin.Data, Is.EqualTo((byte[])[.. content, .. before[65_537..]]));
    }

    [Test]
    public async Task A_destination_that_is_too_small_is_refused_before_anything_is_written()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync(TestData.Random(8193));
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[8192]);

        NbdCopyException refusal = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination))!;

        Assert.That(refusal.Fault, Is.EqualTo(NbdCopyFault.Destination));
        Assert.That(refusal.Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(refusal.Message, Does.Contain("8192").And.Contain("8193"));
        Assert.That(destination.Plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task A_destination_that_is_read_only_is_refused()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync(TestData.Random(8192));
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[8192], new ReadonlyFilter());

        NbdCopyException refusal = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination))!;

        Assert.That(refusal.Error, Is.EqualTo(NbdError.PermissionDenied));
    }

    [Test]
    public async Task Several_contexts_need_the_promise_of_multi_conn()
    {
        var info = ModelPlugin.Everything with { CanMultiConn = false };
        await using CopyDisk disk = await CopyDisk.OpenAsync(new ModelPlugin(new byte[512], info), 2);
        Assert.That(() => disk.Source, Throws.ArgumentException.With.Message.Contains("model"));
        Assert.That(() => disk.Destination, Throws.ArgumentException.With.Message.Contains("model"));
    }

    [Test]
    public async Task Requests_in_flight_are_as_many_as_asked_for_by_number_and_by_bytes()
    {
        foreach ((int requests, long bytes, int expected) in new[] { (5, 1L << 30, 5), (100, 3 * 4096L, 3), (8, 1L, 1) })
        {
            int now = 0;
            int most = 0;
            var together = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var plugin = new ModelPlugin(TestData.Random(4096 * 40), ModelPlugin.Everything with { CanExtents = false })
            {
                Before = async _ =>
                {
                    int count = Interlocked.Increment(ref now);
                    lock (together)
                    {
                        most = Math.Max(most, count);
                    }
                    if (count >= expected)
                    {
                        together.TrySetResult();
                    }
                    await together.Task;
                    await Task.Yield();
                    Interlocked.Decrement(ref now);
                },
            };
            await using CopyDisk source = await CopyDisk.OpenAsync(plugin);

            await NbdCopy.CopyAsync(
                source.Source,
                NbdCopyDestination.Null,
                new NbdCopyOptions { RequestSize = 4096, MaxRequestsInFlight = requests, MaxBytesInFlight = bytes }).Soon();

            Assert.That(most, Is.EqualTo(expected));
        }
    }

    [Test]
    public async Task A_layer_that_blocks_its_thread_is_asked_by_several_at_once()
    {
        using var both = new Barrier(2);
        var plugin = new DelegatePlugin(
            8192, (buffer, _) => Assert.That(both.SignalAndWait(TimeSpan.FromSeconds(10)), "the reads do not run at the same time"))
        {
            ThreadModel = ThreadModel.Parallel,
            AdjustInfo = info => info with { IsBlocking = true },
        };
        await using NbdBackend backend = NbdBackend.Compose(plugin);
        await using NextContext context = await backend.OpenAsync();

        NbdCopyResult result = await NbdCopy.CopyAsync(
            NbdCopySource.From(context), NbdCopyDestination.Null, new NbdCopyOptions { RequestSize = 4096 });

        Assert.That(result.BytesRead, Is.EqualTo(8192));
    }

    [Test]
    public async Task Very_large_disks_of_zeroes_take_a_moment()
    {
        await using NbdBackend from = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        await using NextContext source = await from.OpenAsync();
        await using NbdBackend to = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        await using NextContext destination = await to.OpenAsync();
        byte[] data = TestData.Random(5000);
        await source.WriteAsync(data, long.MaxValue - 5000, RequestFlags.None, default);
        await source.WriteAsync(data, 1L << 50, RequestFlags.None, default);

        NbdCopyResult result = await NbdCopy.CopyAsync(
            NbdCopySource.From(source), NbdCopyDestination.To(destination), new NbdCopyOptions { DestinationIsZero = true }).Soon();

        Assert.That(result.Size, Is.EqualTo(long.MaxValue));
        Assert.That(await TestData.ReadAsync(destination, long.MaxValue - 5000, 5000), Is.EqualTo(data));
        Assert.That(await TestData.ReadAsync(destination, 1L << 50, 5000), Is.EqualTo(data));
    }

    [Test]
    public async Task An_empty_source_is_copied()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync([]);
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[5]);
        NbdCopyResult result = await NbdCopy.CopyAsync(
            source.Source, destination.Destination, new NbdCopyOptions { ComputeHash = true, Verify = true });
        Assert.That(result.Size, Is.Zero);
        Assert.That(
            Convert.ToHexString(result.Sha256!.Value.Span),
            Is.EqualTo("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"));
    }

    [Test]
    public async Task Progress_is_told_with_the_clock_and_once_at_the_end()
    {
        var time = new FakeTimeProvider();
        var told = new List<NbdCopyProgress>();
        var plugin = new ModelPlugin(TestData.Random(4096 * 10))
        {
            Before = call =>
            {
                if (call.StartsWith("read", StringComparison.Ordinal))
                {
                    time.Advance(TimeSpan.FromMilliseconds(60));
                }
                return Task.CompletedTask;
            },
        };
        await using CopyDisk source = await CopyDisk.OpenAsync(plugin);

        await NbdCopy.CopyAsync(source.Source, NbdCopyDestination.Null, new NbdCopyOptions
        {
            RequestSize = 4096,
            MaxRequestsInFlight = 1,
            TimeProvider = time,
            Progress = told.Add,
        });

        Assert.That(told.Select(p => p.BytesDone), Is.EqualTo(new long[] { 8192, 16384, 24576, 32768, 40960, 40960 }));
        Assert.That(told.Select(p => p.TotalBytes).Distinct(), Is.EqualTo(new long?[] { 40960 }));
        Assert.That(told[1].Elapsed, Is.EqualTo(TimeSpan.FromMilliseconds(240)));
    }
}
