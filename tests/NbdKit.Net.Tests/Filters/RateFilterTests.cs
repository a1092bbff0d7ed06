using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class RateFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin;
    private readonly TimeSpan _began = TimeSpan.Zero;

    public RateFilterTests()
    {
        _plugin = new RecordingPlugin(_calls) { Data = new byte[1 << 20] };
        _began = Now;
    }

    private TimeSpan Now => TimeSpan.FromTicks(_time.GetTimestamp());

    private TimeSpan Elapsed => Now - _began;

    [Test]
    public async Task Without_a_rate_nothing_waits()
    {
        await using NbdBackend chain = Compose(new RateFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That(disk.ReadAsync(new byte[1 << 20], 0, None).IsCompletedSuccessfully);
        Assert.That(disk.WriteAsync(new byte[1 << 20], 0, RequestFlags.None, None).IsCompletedSuccessfully);
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [TestCase(true, false)]
    [TestCase(false, false)]
    [TestCase(true, true)]
    public async Task A_request_takes_as_long_as_its_bits(bool write, bool onConnection)
    {
        // 64 KiB a second.
        long rate = 65_536 * 8;
        await using NbdBackend chain = Compose(
            new RateFilter { Rate = onConnection ? 0 : rate, ConnectionRate = onConnection ? rate : 0, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("disk");
        byte[] data = TestData.Random(131_072);
        await PassAsync(write
            ? disk.WriteAsync(data, 0, RequestFlags.None, None)
            : disk.ReadAsync(data, 0, None));
        Assert.That(Elapsed.TotalMilliseconds, Is.EqualTo(2000).Within(1));
        Assert.That(write ? _plugin.Data.AsSpan(0, data.Length).ToArray() : data, Is.EqualTo(write ? data : new byte[131_072]));
    }

    [Test]
    public async Task A_large_request_is_carried_out_piece_by_piece_at_block_boundaries()
    {
        _plugin.Info = (_, info) => info with { BlockSize = new BlockSize(512, 8192) };
        await using NbdBackend chain = Compose(new RateFilter { Rate = 8 * 200_000, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("disk");
        await PassAsync(disk.WriteAsync(new byte[60_416], 512, RequestFlags.Fua, None));
        RecordedCall[] writes = [.. _calls.Calls.Where(call => call.Callback == "write")];
        Assert.That(writes.Select(call => (call.Offset, call.Length)), Is.EqualTo(new[]
        {
            (512L, 15_872L), (16_384, 16_384), (32_768, 16_384), (49_152, 11_776),
        }));
        Assert.That(writes.Select(call => call.Flags), Is.All.EqualTo(RequestFlags.Fua));
    }

    [Test]
    public async Task What_is_not_used_is_saved_up_for_as_long_as_the_burstiness()
    {
        await using NbdBackend chain = Compose(
            new RateFilter { Rate = 8 * 10_000, Burstiness = TimeSpan.FromSeconds(3), TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("disk");
        _time.Advance(TimeSpan.FromSeconds(100));
        Assert.That(disk.ReadAsync(new byte[30_000], 0, None).IsCompletedSuccessfully);
        Task next = disk.ReadAsync(new byte[1], 0, None).AsTask();
        Assert.That(next.IsCompleted, Is.False);
        Assert.That(disk.WriteAsync(new byte[30_000], 0, RequestFlags.None, None).IsCompletedSuccessfully, "writes count apart");
        _time.Advance(TimeSpan.FromMilliseconds(1));
        await next.Soon();
    }

    [Test]
    public async Task Everything_else_is_free_emulated_or_not([Values] bool emulated)
    {
        if (emulated)
        {
            _plugin.Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate, CanFastZero = false };
        }
        await using NbdBackend chain = Compose(new RateFilter { Rate = 1, ConnectionRate = 1, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("disk");
        await disk.ZeroAsync(0, 100_000, RequestFlags.None, None).Soon();
        await disk.TrimAsync(0, 100_000, RequestFlags.None, None).Soon();
        await disk.CacheAsync(0, 100_000, None).Soon();
        await disk.FlushAsync(None).Soon();
        await disk.ExtentsAsync(0, 100, RequestFlags.None, new ExtentList(0, 100), None).Soon();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task Connections_share_the_common_rate_whatever_they_ask_for()
    {
        // 40 KiB a second: pieces of 4 KiB.
        var filter = new RateFilter { Rate = 8 * 40_960, TimeProvider = _time };
        await using NbdBackend chain = Compose(filter);
        await using NextContext greedy = await chain.OpenAsync("disk");
        await using NextContext many = await chain.OpenAsync("disk");
        await using NextContext modest = await chain.OpenAsync("disk");
        Task large = greedy.ReadAsync(new byte[1 << 20], 0, None).AsTask();
        Task crowd = Task.WhenAll(Enumerable.Range(0, 50).Select(i => many.ReadAsync(new byte[4096], i * 4096, None).AsTask()));
        Task small = modest.ReadAsync(new byte[8192], 0, None).AsTask();
        await PassAsync(small);
        TimeSpan ofModest = Elapsed;
        long[] shares = [.. Enumerable.Range(1, 3).Select(ReadOf)];
        await PassAsync(crowd);
        bool done = large.IsCompleted;
        long ofGreedy = ReadOf(1);
        filter.Rate = 0;
        await large.Soon();

        // Its 8 KiB came with as much for each of the two others, and at most a piece more.
        Assert.That(ofModest.TotalMilliseconds, Is.EqualTo(600).Within(101));
        Assert.That(shares, Is.All.InRange(8192, 12_288));
        Assert.That(done, Is.False);
        Assert.That(ofGreedy, Is.EqualTo(50 * 4096).Within(2 * 4096));

        long ReadOf(int context)
            => _calls.Calls.Where(call => call.Callback == "read" && call.Context == context).Sum(call => call.Length);
    }

    [Test]
    public async Task Connections_from_one_address_have_one_rate_if_that_is_wanted([Values] bool perAddress)
    {
        await using NbdBackend chain = Compose(new RateFilter { ConnectionRate = 8 * 4096, PerAddress = perAddress, TimeProvider = _time });
        await chain.StartAsync();
        await using NextContext first = await FromAsync("192.0.2.1");
        await using NextContext second = await FromAsync("::ffff:192.0.2.1");
        await using NextContext other = await FromAsync("192.0.2.2");
        await PassAsync(Task.WhenAll(new[] { first, second, other }.Select(disk => disk.ReadAsync(new byte[8192], 0, None).AsTask())));
        Assert.That(Elapsed.TotalSeconds, Is.EqualTo(perAddress ? 4 : 2).Within(0.11));
        // Who leaves takes nothing from the others; who comes back begins anew.
        await second.DisposeAsync();
        TimeSpan before = Elapsed;
        await PassAsync(first.ReadAsync(new byte[4096], 0, None));
        Assert.That((Elapsed - before).TotalSeconds, Is.EqualTo(1).Within(0.11));

        async Task<NextContext> FromAsync(string address)
        {
            var peer = new NbdPeer { EndPoint = new System.Net.IPEndPoint(System.Net.IPAddress.Parse(address), 4711) };
            NextContext disk = await chain.OpenEntryAsync(
                false, "disk", new NbdConnection(1, peer, default, _ => { }, () => { }), default);
            await disk.PrepareAsync(default);
            return disk;
        }
    }

    [Test]
    public async Task Each_connection_has_a_rate_of_its_own_and_begins_with_nothing_saved()
    {
        await using NbdBackend chain = Compose(new RateFilter { ConnectionRate = 8 * 4096, TimeProvider = _time });
        await using NextContext first = await chain.OpenAsync("disk");
        _time.Advance(TimeSpan.FromSeconds(10));
        await using NextContext second = await chain.OpenAsync("disk");
        Assert.That(first.ReadAsync(new byte[8192], 0, None).IsCompletedSuccessfully);
        Task one = first.ReadAsync(new byte[4096], 0, None).AsTask();
        Task two = second.ReadAsync(new byte[4096], 0, None).AsTask();
        Assert.That((one.IsCompleted, two.IsCompleted), Is.EqualTo((false, false)));
        _time.Advance(TimeSpan.FromSeconds(1));
        await Task.WhenAll(one, two).Soon();
    }

    [Test]
    public async Task Requests_that_wait_go_on_at_a_new_rate()
    {
        var filter = new RateFilter { Rate = 8, TimeProvider = _time };
        await using NbdBackend chain = Compose(filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Task read = disk.ReadAsync(new byte[4096], 0, None).AsTask();
        await _time.WaitForTimersAsync();
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(2)), "as much as can be saved up");
        filter.Rate = 8 * 4096;
        filter.Burstiness = TimeSpan.FromSeconds(1);
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(1)));
        filter.Rate = 0;
        await read.Soon();
        Assert.That(Elapsed, Is.EqualTo(TimeSpan.Zero));

        filter.ConnectionRate = 8 * 4096;
        read = disk.ReadAsync(new byte[4096], 0, None).AsTask();
        Assert.That(read.IsCompleted, Is.False);
        filter.ConnectionRate = 0;
        await read.Soon();
        Assert.That((filter.Rate, filter.ConnectionRate, filter.Burstiness), Is.EqualTo((0L, 0L, TimeSpan.FromSeconds(1))));
        Assert.That(disk.ReadAsync(new byte[4096], 0, None).IsCompletedSuccessfully);
    }

    [Test]
    public async Task A_request_that_is_given_up_leaves_its_turn_to_the_next()
    {
        await using NbdBackend chain = Compose(new RateFilter { Rate = 8 * 1000, TimeProvider = _time });
        await using NextContext first = await chain.OpenAsync("disk");
        await using NextContext second = await chain.OpenAsync("disk");
        using var gone = new CancellationTokenSource();
        Task large = first.ReadAsync(new byte[2000], 0, gone.Token).AsTask();
        Task small = second.ReadAsync(new byte[500], 0, None).AsTask();
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(2)));
        await gone.CancelAsync();
        Assert.That(async () => await large.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(0.5)));
        _time.Advance(TimeSpan.FromSeconds(0.5));
        await small.Soon();
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1));
    }

    [Test]
    public async Task The_largest_rates_and_requests_overflow_nothing()
    {
        var filter = new RateFilter
        {
            Rate = long.MaxValue,
            ConnectionRate = 1,
            Burstiness = TimeSpan.FromHours(1),
            TimeProvider = _time,
        };
        await using NbdBackend chain = Compose(filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        _time.Advance(TimeSpan.FromDays(10_000));
        // 3,600 bits are saved up.
        Assert.That(disk.ReadAsync(new byte[450], 0, None).IsCompletedSuccessfully);
        Task read = disk.ReadAsync(new byte[1 << 20], 0, None).AsTask();
        await Task.WhenAny(PassAsync(read, steps: 400)).Soon();
        filter.ConnectionRate = 0;
        await read.Soon();
        Assert.That(Elapsed.TotalDays, Is.EqualTo(10_000 + ((1 << 20) * 8.0 / 86_400)).Within(1));
    }

    [Test]
    public async Task Files_change_the_rates_and_are_looked_at_once_a_second()
    {
        using var scratch = new ScratchDirectory();
        string common = Path.Combine(scratch.Path, "rate");
        string connection = Path.Combine(scratch.Path, "connection-rate");
        var filter = new RateFilter { Rate = 5, RateFile = common, ConnectionRateFile = connection, TimeProvider = _time };
        await using NbdBackend chain = Compose(filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        _time.Advance(TimeSpan.FromSeconds(1));
        await LookAsync();
        Assert.That((filter.Rate, filter.ConnectionRate), Is.EqualTo((5L, 0L)), "there is no file");
        await File.WriteAllTextAsync(common, "1G\nsomething else\n");
        await File.WriteAllTextAsync(connection, " 2G ");
        _time.Advance(TimeSpan.FromSeconds(0.9));
        await LookAsync();
        Assert.That(filter.Rate, Is.EqualTo(5));
        _time.Advance(TimeSpan.FromSeconds(0.1));
        await LookAsync();
        Assert.That((filter.Rate, filter.ConnectionRate), Is.EqualTo((1L << 30, 2L << 30)));
        await File.WriteAllTextAsync(common, "fast");
        _time.Advance(TimeSpan.FromSeconds(1));
        await LookAsync();
        Assert.That(filter.Rate, Is.EqualTo(1L << 30));

        // Whether this read waits is of no interest, only that it looked.
        async Task LookAsync()
        {
            using var enough = new CancellationTokenSource();
            Task read = disk.ReadAsync(new byte[1], 0, enough.Token).AsTask();
            await Task.WhenAny(read, _time.WaitForTimersAsync()).Soon();
            await enough.CancelAsync();
            await ((Task)Task.WhenAny(read)).Soon();
        }
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        RateFilter filter = Create(("rate", "1M"), ("connection-rate", "500K"), ("burstiness", "0.5"), ("rate-file", "r"), ("connection-rate-file", "c"));
        Assert.That((filter.Rate, filter.ConnectionRate, filter.Burstiness), Is.EqualTo((1L << 20, 500L << 10, TimeSpan.FromSeconds(0.5))));
        Assert.That((filter.RateFile, filter.ConnectionRateFile), Is.EqualTo((Path.GetFullPath("r"), Path.GetFullPath("c"))));
        Assert.That(Create().Burstiness, Is.EqualTo(TimeSpan.FromSeconds(2)));
        Assert.That(() => Create(("rate", "fast")), Throws.ArgumentException);
        Assert.That(() => Create(("burstiness", "0")), Throws.InstanceOf<ArgumentException>());
        Assert.That(() => new RateFilter { Rate = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RateFilter { ConnectionRate = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RateFilter { Burstiness = TimeSpan.FromHours(2) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new RateFilter { RateFile = "" }, Throws.ArgumentException);
        Assert.That(() => new RateFilter { TimeProvider = null! }, Throws.ArgumentNullException);
    }

    private static RateFilter Create(params (string Name, string Value)[] parameters)
        => (RateFilter)RateFilter.Entry.Create(
            new NbdParameters("rate", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    private NbdBackend Compose(RateFilter filter) => NbdBackend.Compose(_plugin, filter);

    private Task PassAsync(ValueTask request) => PassAsync(request.AsTask());

    /// <summary>Lets time pass from timer to timer until a request has ended.</summary>
    private async Task PassAsync(Task request, int steps = 1000)
    {
        for (int i = 0; i < steps && !request.IsCompleted; i++)
        {
            await Task.WhenAny(request, _time.WaitForTimersAsync()).Soon();
            if (_time.NextTimer is { } next && !request.IsCompleted)
            {
                int before = Transfers;
                _time.Advance(next);
                // What was woken does its piece, and reaches its next wait or the end.
                for (int j = 0; j < 10_000 && Transfers == before; j++)
                {
                    await Task.Yield();
                }
                await Settle();
            }
        }
        await request.Soon();
    }

    private int Transfers => _calls.Count("plugin", "read") + _calls.Count("plugin", "write");

    private static async Task Settle()
    {
        for (int i = 0; i < 20; i++)
        {
            await Task.Yield();
        }
    }
}
