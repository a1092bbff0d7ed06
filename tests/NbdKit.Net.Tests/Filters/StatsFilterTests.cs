using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class StatsFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin = new(new CallRecorder()) { Data = new byte[1 << 20] };

    [Test]
    public async Task Requests_are_counted_by_kind_with_their_bytes_and_their_time()
    {
        _plugin.Info = (_, info) => info with { CanZero = Support.Emulate, CanFua = Support.Emulate };
        var filter = new StatsFilter { TimeProvider = _time };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        var takes = TimeSpan.FromMilliseconds(3);
        _plugin.Script.OnCall = (call, _) =>
        {
            _time.Advance(takes);
            return default;
        };
        await disk.ReadAsync(new byte[100], 0, None);
        await disk.ReadSparseAsync(new byte[50], 0, new ExtentList(0, 50), None);
        await disk.WriteAsync(new byte[10], 0, RequestFlags.Fua, None);
        await disk.ZeroAsync(0, 1000, RequestFlags.None, None);
        await disk.TrimAsync(0, 2000, RequestFlags.None, None);
        await disk.CacheAsync(0, 30, None);
        await disk.ExtentsAsync(0, 40, RequestFlags.None, new ExtentList(0, 40), None);
        await disk.FlushAsync(None);
        _plugin.Script.Fail("read", times: 1);
        TestData.Failure(() => disk.ReadAsync(new byte[3], 0, None).AsTask());

        StatsSnapshot stats = filter.Snapshot();
        Assert.That(
            stats.Operations.Select(o => $"{o.Operation} {o.Requests} {o.Failures} {o.Bytes} {o.Duration.TotalMilliseconds}"),
            Is.EqualTo(new[]
            {
                "Read 2 1 150 6", "Write 1 0 10 6", "Trim 1 0 2000 3", "Zero 1 0 1000 3", "Extents 1 0 40 3", "Cache 1 0 30 3",
                "Flush 1 0 0 3",
            }));
        Assert.That((stats.Requests, stats.Bytes, stats.Elapsed.TotalMilliseconds), Is.EqualTo((8L, 3160L, 30.0)));
        Assert.That(stats.BytesPerSecond, Is.EqualTo(3160 / 0.030).Within(1e-6));
    }

    [Test]
    public async Task Sizes_and_alignments_are_counted_in_bits()
    {
        var filter = new StatsFilter { TimeProvider = _time };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        foreach ((long offset, int length) in new[] { (0L, 4096), (4096, 4097), (8192, 8191), (512, 4096), (3, 1), (1 << 19, 8192) })
        {
            await disk.ReadAsync(new byte[length], offset, None);
        }
        IReadOnlyList<SizeStats> sizes = filter.Snapshot()[RequestOperation.Read].Sizes;
        Assert.That(sizes.Select(s => (s.Bits, s.Requests, s.Bytes)), Is.EqualTo(new[] { (0, 1L, 1L), (12, 4L, 20_480L), (13, 1L, 8192L) }));
        Assert.That(sizes[0].Aligned, Is.EqualTo(new Dictionary<int, long> { [0] = 1 }));
        Assert.That(sizes[1].Aligned, Is.EqualTo(new Dictionary<int, long> { [9] = 4, [12] = 3, [13] = 2 }));
        Assert.That(sizes[2].Aligned, Is.EqualTo(new Dictionary<int, long> { [19] = 1 }));
    }

    [Test]
    public async Task Latencies_are_right_to_a_sixteenth()
    {
        var filter = new StatsFilter { TimeProvider = _time };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That(filter.Snapshot()[RequestOperation.Read].Percentile(50), Is.EqualTo(TimeSpan.Zero));
        TimeSpan takes = default;
        _plugin.Script.OnCall = (call, _) =>
        {
            _time.Advance(takes);
            return default;
        };
        for (int i = 1; i <= 1000; i++)
        {
            takes = TimeSpan.FromMicroseconds(i * 10);
            await disk.ReadAsync(new byte[1], 0, None);
        }
        OperationStats reads = filter.Snapshot()[RequestOperation.Read];
        foreach (double percent in new[] { 1, 50, 95, 99.9, 100 })
        {
            Assert.That(
                reads.Percentile(percent).TotalMicroseconds,
                Is.InRange(percent * 100, percent * 100 * 17 / 16), $"{percent}%");
        }
        Assert.That(reads.Percentile(0).TotalMicroseconds, Is.InRange(10, 11));
        Assert.That(() => reads.Percentile(101), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => reads.Percentile(double.NaN), Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task Requests_that_end_later_and_in_parallel_are_measured_each()
    {
        var filter = new StatsFilter { TimeProvider = _time };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => gate.PassAsync(token);
        Task first = disk.ReadAsync(new byte[1], 0, None).AsTask();
        _time.Advance(TimeSpan.FromSeconds(1));
        Task second = disk.ReadAsync(new byte[1], 0, None).AsTask();
        _time.Advance(TimeSpan.FromSeconds(1));
        gate.Open();
        await Task.WhenAll(first, second).Soon();
        Assert.That(filter.Snapshot()[RequestOperation.Read].Duration, Is.EqualTo(TimeSpan.FromSeconds(3)));
        Assert.That(filter.Snapshot().Elapsed, Is.EqualTo(TimeSpan.FromSeconds(2)));
    }

    [Test]
    public async Task Large_requests_that_are_lent_are_counted()
    {
        var filter = new StatsFilter();
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 4 << 20 }, filter));
        WireClient client = await server.TransmitAsync();
        byte[] data = TestData.Random(1 << 20);
        await client.WriteDataAsync(1 << 20, data);
        Assert.That(await client.ReadDataAsync(1 << 20, 1 << 20), Is.EqualTo(data));
        StatsSnapshot stats = filter.Snapshot();
        foreach (RequestOperation operation in new[] { RequestOperation.Read, RequestOperation.Write })
        {
            Assert.That((stats[operation].Requests, stats[operation].Bytes), Is.EqualTo((1L, 1L << 20)), operation.ToString());
        }
    }

    [Test]
    public async Task The_file_has_nbdkits_form()
    {
        using var folder = new ScratchDirectory();
        string path = folder["stats"];
        await RunAsync(new StatsFilter { StatsFile = path, TimeProvider = _time });
        Assert.That(await File.ReadAllTextAsync(path), Is.EqualTo("""
            total: 24 ops, 2.400000 s, 104.50 KiB, 43.54 KiB/s
            read: 21 ops, 2.100000 s, 88.50 KiB, 42.14 KiB/s op, 36.88 KiB/s total
              Request size and alignment breakdown:
                12 bits: 95.2% (20 reqs, 80.00 KiB total)
                     12 bit aligned: 100.0% (20)
                     13 bit aligned:  50.0% (10)
                     14 bit aligned:  25.0% (5)
                     15 bit aligned:  15.0% (3)
                     16 bit aligned:  10.0% (2)
                other sizes:  4.8% (1 reqs, 8.50 KiB total)

            write: 2 ops, 0.200000 s, 16.00 KiB, 80.00 KiB/s op, 6.67 KiB/s total
              Request size and alignment breakdown:
                13 bits: 100.0% (2 reqs, 16.00 KiB total)
                     16 bit aligned: 100.0% (2)

            flush: 1 ops, 0.100000 s, 0 bytes, 0 bytes/s op, 0 bytes/s total

            """));
    }

    [Test]
    public async Task Sizes_that_are_equally_frequent_are_all_listed()
    {
        using var folder = new ScratchDirectory();
        string path = folder["stats"];
        await using (NbdBackend chain = NbdBackend.Compose(_plugin, new StatsFilter { StatsFile = path, TimeProvider = _time }))
        {
            await using NextContext disk = await chain.OpenAsync("disk");
            await disk.ReadAsync(new byte[512], 512, None);
            await disk.ReadAsync(new byte[4096], 4096, None);
        }
        string[] lines = await File.ReadAllLinesAsync(path);
        Assert.That(lines.Where(line => line.Contains("reqs")), Is.EqualTo(new[]
        {
            "    12 bits: 50.0% (1 reqs, 4.00 KiB total)", "    other sizes: 50.0% (1 reqs, 512 bytes total)",
        }));
        Assert.That(lines[0], Is.EqualTo("total: 2 ops, 0.000000 s, 4.50 KiB, (n/a)/s"), "no time has passed");
    }

    [Test]
    public async Task Requests_on_many_threads_are_all_counted()
    {
        var filter = new StatsFilter();
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }, filter);
        await using NextContext disk = await chain.OpenAsync();
        await Task.WhenAll(Enumerable.Range(0, 8).Select(thread => Task.Run(async () =>
        {
            byte[] buffer = new byte[1024];
            for (int i = 1; i <= 1000; i++)
            {
                await disk.ReadAsync(buffer.AsMemory(0, i), thread * i, None);
            }
        })));
        OperationStats reads = filter.Snapshot()[RequestOperation.Read];
        Assert.That((reads.Requests, reads.Bytes), Is.EqualTo((8000L, 8L * 500_500)));
        Assert.That((reads.Sizes.Sum(s => s.Requests), reads.Sizes.Sum(s => s.Bytes)), Is.EqualTo((8000L, 8L * 500_500)));
    }

    [Test]
    public async Task The_file_is_replaced_or_appended_to_as_asked([Values] bool append)
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("stats", "before\n"u8.ToArray());
        await RunAsync(new StatsFilter { StatsFile = path, Append = append, Threshold = 0, TimeProvider = _time });
        string[] lines = await File.ReadAllLinesAsync(path);
        Assert.That(lines.Select(line => line.Split(':')[0]), Is.EqualTo(
            append ? new[] { "before", "total", "read", "write", "flush" } : ["total", "read", "write", "flush"]));
    }

    [Test]
    public async Task A_file_that_cannot_be_written_ends_the_start()
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = NbdBackend.Compose(_plugin, new StatsFilter { StatsFile = folder["missing/stats"] });
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<IOException>());
        await chain.DisposeAsync();
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new StatsFilter { Threshold = 101 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new StatsFilter { StatsFile = " " }, Throws.ArgumentException);
    }

    private async Task RunAsync(StatsFilter filter)
    {
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        _plugin.Script.OnCall = (call, _) =>
        {
            _time.Advance(call.Callback == "close" ? TimeSpan.Zero : TimeSpan.FromMilliseconds(100));
            return default;
        };
        for (int i = 0; i < 20; i++)
        {
            await disk.ReadAsync(new byte[4096], i * 4096, None);
        }
        await disk.ReadAsync(new byte[8704], 512, None);
        await disk.WriteAsync(new byte[8192], 65_536, RequestFlags.None, None);
        await disk.WriteAsync(new byte[8192], 0, RequestFlags.None, None);
        await disk.FlushAsync(None);
        await disk.CloseAsync();
        _plugin.Script.OnCall = null;
    }
}
