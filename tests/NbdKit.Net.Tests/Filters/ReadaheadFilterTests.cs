using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class ReadaheadFilterTests
{
    private const int K = 1024;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;

    public ReadaheadFilterTests()
    {
        _plugin = NewPlugin(ThreadModel.Parallel);
    }

    [Test]
    public async Task The_second_read_in_sequence_reads_ahead_and_the_third_needs_nothing_below()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Task ahead = Arrives(32 * K);
        await CheckAsync(disk, 0, 16 * K);
        await CheckAsync(disk, 16 * K, 16 * K);
        await ahead;
        await CheckAsync(disk, 32 * K, 16 * K);
        await CheckAsync(disk, 48 * K, 8 * K);
        Assert.That(Ranges().Take(3), Is.EqualTo(new[] { (0L, 16L * K), (16L * K, 16L * K), (32L * K, 32L * K) }));
        Assert.That(Ranges().Where(range => range.Length < 16 * K), Is.Empty, "the client's reads come from memory");
    }

    [Test]
    public async Task The_window_doubles_up_to_its_limit_and_ends_with_the_disk()
    {
        await using NbdBackend chain = Compose(128 * K);
        await using (NextContext disk = await chain.OpenAsync())
        {
            for (int offset = 0; offset < _plugin.Data.Length; offset += 16 * K)
            {
                await CheckAsync(disk, offset, Math.Min(16 * K, _plugin.Data.Length - offset));
            }
        }
        (long Offset, long Length)[] ranges = Ranges();
        Assert.That(ranges.Max(range => range.Length), Is.LessThanOrEqualTo(128 * K));
        Assert.That(ranges.Length, Is.LessThan(30), "far fewer reads than the 64 of the client");
        long at = 0;
        foreach ((long offset, long length) in ranges.Order())
        {
            Assert.That(offset, Is.EqualTo(at), "nothing is read twice or left out");
            at += length;
        }
        Assert.That(at, Is.EqualTo(_plugin.Data.Length));
    }

    [Test]
    public async Task Random_reads_are_passed_on_and_nothing_else_is_read()
    {
        await using NbdBackend chain = Compose();
        await using (NextContext disk = await chain.OpenAsync())
        {
            foreach (int offset in new[] { 500, 100, 300, 700, 0, 200 })
            {
                await CheckAsync(disk, offset * K, 4 * K);
            }
        }
        Assert.That(Ranges().Select(range => range.Offset), Is.EqualTo(new long[] { 500 * K, 100 * K, 300 * K, 700 * K, 0, 200 * K }));
    }

    [Test]
    public async Task What_is_read_ahead_keeps_no_other_read_waiting_and_is_not_read_twice()
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token)
            => call is { Callback: "read", Offset: 32 * K } ? gate.PassAsync(token) : default;
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await CheckAsync(disk, 0, 16 * K);
        await CheckAsync(disk, 16 * K, 16 * K);
        await gate.ArrivedAsync();
        await CheckAsync(disk, 500 * K, 4 * K).Soon();
        Task meets = CheckAsync(disk, 32 * K, 8 * K);
        Assert.That(meets.IsCompleted, Is.False);
        gate.Open();
        await meets.Soon();
        Assert.That(Ranges().Count(range => range.Offset == 32 * K), Is.EqualTo(1));
    }

    [Test]
    public async Task An_error_ahead_is_only_seen_by_the_read_that_meets_it()
    {
        int left = 1;
        Task ahead = Arrives(32 * K);
        _plugin.Script.Fail("read", call => call is { Offset: 32 * K, Length: 32 * K } && left-- > 0
            ? new NbdException(NbdError.IoError, "bad sector") : null);
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        await CheckAsync(disk, 0, 16 * K);
        await CheckAsync(disk, 16 * K, 16 * K);
        await ahead;
        await CheckAsync(disk, 32 * K, 16 * K);
        Assert.That(left, Is.Zero);
        _plugin.Script.Fail("read");
        Assert.That(async () => await disk.ReadAsync(new byte[K], 900 * K, default), Throws.TypeOf<NbdException>());
    }

    [Test]
    public async Task Writes_on_any_connection_are_seen_at_once([Values("write", "zero", "trim")] string kind)
    {
        await using NbdBackend chain = Compose();
        await using NextContext reader = await chain.OpenAsync();
        await using NextContext writer = await chain.OpenAsync();
        Task ahead = Arrives(32 * K);
        await CheckAsync(reader, 0, 16 * K);
        await CheckAsync(reader, 16 * K, 16 * K);
        await ahead;
        switch (kind)
        {
            case "write":
                await writer.WriteAsync(new byte[100], 40 * K, RequestFlags.None, default);
                break;
            case "zero":
                await writer.ZeroAsync(40 * K, 100, RequestFlags.None, default);
                break;
            default:
                await writer.TrimAsync(40 * K, 100, RequestFlags.None, default);
                break;
        }
        Assert.That(_plugin.Data[40 * K], Is.Zero);
        await CheckAsync(reader, 32 * K, 16 * K);
    }

    [Test]
    public async Task A_layer_that_serializes_requests_is_read_ahead_over_a_context_of_its_own()
    {
        RecordingPlugin plugin = NewPlugin(ThreadModel.SerializeRequests);
        Task ahead = Arrives(32 * K, plugin);
        await using (NbdBackend chain = NbdBackend.Compose(plugin, new ReadaheadFilter()))
        {
            await using NextContext disk = await chain.OpenAsync("x");
            await CheckAsync(disk, 0, 16 * K);
            Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1), "only when it is needed");
            await CheckAsync(disk, 16 * K, 16 * K);
            await ahead;
            await CheckAsync(disk, 32 * K, 16 * K);
        }
        Assert.That(
            _calls.Calls.Where(call => call.Callback == "open").Select(call => (call.ExportName, call.ReadOnly)),
            Is.EqualTo(new[] { ("x", false), ("x", true) }));
        Assert.That(_calls.Calls.Single(call => call is { Callback: "read", Offset: 32 * K }).Context, Is.EqualTo(2));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task Nothing_is_read_ahead_where_that_could_show_old_data_or_keep_reads_waiting()
    {
        foreach (ThreadModel model in new[] { ThreadModel.SerializeRequests, ThreadModel.SerializeAllRequests, ThreadModel.SerializeConnections })
        {
            _calls.Clear();
            RecordingPlugin plugin = NewPlugin(model);
            plugin.Info = (_, info) => info with { CanMultiConn = false };
            await using (NbdBackend chain = NbdBackend.Compose(plugin, new ReadaheadFilter()))
            {
                await using NextContext disk = await chain.OpenAsync();
                for (int i = 0; i < 10; i++)
                {
                    await CheckAsync(disk, i * 16 * K, 16 * K);
                }
            }
            Assert.That(Ranges(), Has.Length.EqualTo(10), $"{model}");
            Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1), $"{model}");
        }
    }

    [Test]
    public async Task A_stream_that_the_client_leaves_is_forgotten_and_another_one_found()
    {
        await using NbdBackend chain = Compose();
        await using NextContext disk = await chain.OpenAsync();
        Task ahead = Arrives(32 * K);
        await CheckAsync(disk, 0, 16 * K);
        await CheckAsync(disk, 16 * K, 16 * K);
        await ahead;
        foreach (int offset in new[] { 500, 100, 300, 700, 900 })
        {
            await CheckAsync(disk, offset * K, 4 * K);
        }
        await CheckAsync(disk, 32 * K, 16 * K);
        Assert.That(Ranges()[^1], Is.EqualTo((32L * K, 16L * K)), "what was read ahead is gone");
        ahead = Arrives(64 * K);
        await CheckAsync(disk, 48 * K, 16 * K);
        await ahead;
    }

    [Test]
    public async Task Closing_does_not_wait_for_what_is_read_ahead()
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token)
            => call is { Callback: "read", Offset: 32 * K } ? gate.PassAsync(token) : default;
        await using NbdBackend chain = Compose();
        NextContext disk = await chain.OpenAsync();
        await CheckAsync(disk, 0, 16 * K);
        await CheckAsync(disk, 16 * K, 16 * K);
        await gate.ArrivedAsync();
        await disk.CloseAsync().Soon();
        _calls.AssertBalanced();
    }

    [Test]
    public async Task Parallel_readers_and_writers_agree_with_a_model([Values(1, 2, 3)] int seed)
    {
        const int Workers = 4;
        const int Part = 256 * K;
        _plugin.Script.OnCall = async (_, _) => await Task.Yield();
        byte[] model = [.. _plugin.Data];
        await using NbdBackend chain = Compose(96 * K);
        await using NextContext shared = await chain.OpenAsync();
        await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
        {
            var random = new Random((seed * 1000) + worker);
            await using NextContext own = await chain.OpenAsync();
            int at = 0;
            for (int i = 0; i < 300; i++)
            {
                int length = 1 + random.Next(12 * K);
                at = random.Next(15) == 0 || at + length > Part ? random.Next(Part - length) : at;
                int offset = (worker * Part) + at;
                if (random.Next(4) == 0)
                {
                    int from = Math.Min(offset + random.Next(40 * K), ((worker + 1) * Part) - 100);
                    random.NextBytes(model.AsSpan(from, 100));
                    await shared.WriteAsync(model.AsMemory(from, 100), from, RequestFlags.None, default);
                }
                var data = new byte[length];
                await own.ReadAsync(data, offset, default);
                Assert.That(data.AsSpan().SequenceEqual(model.AsSpan(offset, length)), Is.True, $"seed {seed}, worker {worker}, read {i}");
                at += length;
            }
        })));
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        var filter = (ReadaheadFilter)ReadaheadFilter.Entry.Create(new NbdParameters("readahead", [new("readahead-window", "1M")]));
        Assert.That(filter.MaxWindow, Is.EqualTo(K * K));
        Assert.That(new ReadaheadFilter().MaxWindow, Is.EqualTo(4 * K * K));
        Assert.That(() => new ReadaheadFilter { MaxWindow = 1000 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ReadaheadFilter { MaxWindow = 1L << 31 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private RecordingPlugin NewPlugin(ThreadModel model)
    {
        var data = new byte[K * K];
        new Random(4).NextBytes(data);
        return new RecordingPlugin(_calls) { Data = data, ThreadModel = model };
    }

    private NbdBackend Compose(long window = 4 * K * K) => NbdBackend.Compose(_plugin, new ReadaheadFilter { MaxWindow = window });

    private Task Arrives(long offset, RecordingPlugin? plugin = null)
    {
        var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        (plugin ?? _plugin).Script.OnCall = (call, _) =>
        {
            if (call.Callback == "read" && call.Offset == offset)
            {
                arrived.TrySetResult();
            }
            return default;
        };
        return arrived.Task.Soon();
    }

    private (long Offset, long Length)[] Ranges()
        => [.. _calls.Calls.Where(call => call is { Callback: "read", Failed: false }).Select(call => (call.Offset, call.Length))];

    private async Task CheckAsync(NextContext disk, int offset, int length)
    {
        var data = new byte[length];
        await disk.ReadAsync(data, offset, default);
        Assert.That(data.AsSpan().SequenceEqual(_plugin.Data.AsSpan(offset, length)), Is.True, $"{length} bytes at {offset}");
    }
}
