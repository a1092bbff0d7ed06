using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>How many calls a layer takes at once, seen from inside the plugin.</summary>
public sealed class ThreadModelTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private CallRecorder _calls = null!;
    private RecordingPlugin _plugin = null!;
    private Dictionary<long, Gate> _gates = null!;

    [SetUp]
    public void SetUp()
    {
        _calls = new CallRecorder();
        _gates = Enumerable.Range(0, 8).ToDictionary(i => (long)i, _ => new Gate());
    }

    // A read is inside the plugin as soon as the call has returned its task, if no gate is in its way: nothing else waits.
    private IReadOnlyList<long> Inside => [.. _calls.Calls.Where(c => c.Callback == "read").Select(c => c.Offset)];

    [TestCase(ThreadModel.Parallel)]
    [TestCase(ThreadModel.SerializeRetirement)]
    public async Task Calls_run_in_parallel_on_one_context(ThreadModel model)
    {
        await using NbdBackend chain = Compose(model);
        await using NextContext disk = await chain.OpenAsync("a");
        Task[] reads = [Read(disk, 0), Read(disk, 1), Read(disk, 2)];
        Assert.That(Inside, Is.EqualTo(new[] { 0, 1, 2 }));
        OpenAll();
        await Task.WhenAll(reads).Soon();
    }

    [Test]
    public async Task Serialized_requests_run_one_at_a_time_on_a_context_and_in_parallel_on_two()
    {
        await using NbdBackend chain = Compose(ThreadModel.SerializeRequests);
        await using NextContext first = await chain.OpenAsync("a");
        await using NextContext second = await chain.OpenAsync("b");
        Task[] reads = [Read(first, 0), Read(first, 1), Read(second, 2), Read(second, 3)];
        Assert.That(Inside, Is.EqualTo(new[] { 0, 2 }));
        _gates[0].Open();
        await reads[0].Soon();
        await _gates[1].ArrivedAsync();
        Assert.That(Inside, Is.EqualTo(new[] { 0, 2, 1 }));
        OpenAll();
        await Task.WhenAll(reads).Soon();
    }

    [Test]
    public async Task All_requests_serialized_run_one_at_a_time_over_all_contexts_shared_ones_included()
    {
        NextContext? shared = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) =>
            {
                shared = await backend.OpenNextAsync(false, "common", null, token);
                await shared.PrepareAsync(token);
            },
        });
        await using NbdBackend chain = Compose(ThreadModel.SerializeAllRequests, filter);
        await using NextContext first = await chain.OpenAsync("a");
        await using NextContext second = await chain.OpenAsync("b");
        Task[] reads = [Read(shared!, 0), Read(first, 1), Read(second, 2)];
        Task<NextContext> opening = chain.OpenAsync("c").AsTask();
        Assert.That(Inside, Is.EqualTo(new[] { 0 }));
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(3), "an open is a call too");
        for (long i = 0; i < 3; i++)
        {
            await _gates[i].ArrivedAsync();
            Assert.That(Inside, Has.Count.EqualTo(i + 1));
            _gates[i].Open();
            await reads[i].Soon();
        }
        await (await opening.Soon()).DisposeAsync();
    }

    [Test]
    public async Task Serialized_connections_let_the_second_open_wait_for_the_first_to_close()
    {
        await using NbdBackend chain = Compose(ThreadModel.SerializeConnections);
        NextContext first = await chain.OpenAsync("a");
        Task<NextContext> second = chain.OpenAsync("b").AsTask();
        using var cancel = new CancellationTokenSource();
        Task<NextContext> third = chain.OpenAsync("c", cancellationToken: cancel.Token).AsTask();
        Assert.That((second.IsCompleted, _calls.Count("plugin", "open")), Is.EqualTo((false, 1)));
        Task[] reads = [Read(first, 0), Read(first, 1)];
        Assert.That(Inside, Is.EqualTo(new[] { 0 }), "and requests are serialized as well");
        OpenAll();
        await Task.WhenAll(reads).Soon();
        await cancel.CancelAsync();
        Assert.That(async () => await third.Soon(), Throws.InstanceOf<OperationCanceledException>());
        await first.DisposeAsync();
        await (await second.Soon()).DisposeAsync();
        await (await chain.OpenAsync("d").Soon()).DisposeAsync();
        Assert.That(_calls.Calls.Where(c => c.Callback is "open" or "close").Select(c => c.Callback), Is.EqualTo(new[]
        {
            "open", "close", "open", "close", "open", "close",
        }));
    }

    [Test]
    public async Task Opens_that_fail_give_the_only_place_back()
    {
        await using NbdBackend chain = Compose(ThreadModel.SerializeConnections);
        foreach (string callback in new[] { "open", "info" })
        {
            _plugin.Script.Fail(callback, times: 1);
            Assert.That(async () => await chain.OpenAsync("a").Soon(), Throws.InstanceOf<NbdException>());
        }
        await (await chain.OpenAsync("b").Soon()).DisposeAsync();
    }

    [Test]
    public async Task A_waiting_call_that_is_cancelled_leaves_the_gate_as_it_was()
    {
        await using NbdBackend chain = Compose(ThreadModel.SerializeRequests);
        await using NextContext disk = await chain.OpenAsync("a");
        using var cancel = new CancellationTokenSource();
        Task first = Read(disk, 0);
        Task second = disk.ReadAsync(new byte[1], 1, cancel.Token).AsTask();
        Task third = Read(disk, 2);
        await cancel.CancelAsync();
        Assert.That(async () => await second.Soon(), Throws.InstanceOf<OperationCanceledException>());
        OpenAll();
        await first.Soon();
        await third.Soon();
        Assert.That(Inside, Is.EqualTo(new[] { 0, 2 }));
        await Read(disk, 3).Soon();
    }

    [Test]
    public async Task A_call_that_throws_gives_the_gate_back()
    {
        await using NbdBackend chain = Compose(ThreadModel.SerializeAllRequests);
        await using NextContext disk = await chain.OpenAsync("a");
        _plugin.Script.Fail("write", times: 1);
        Assert.That(
            async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, None), Throws.InstanceOf<NbdException>());
        OpenAll();
        await Read(disk, 0).Soon();
    }

    [Test]
    public async Task A_filter_that_tightens_is_guarded_itself_and_so_is_the_whole_chain()
    {
        int inside = 0;
        int most = 0;
        Hooks Counting(Func<ThreadModel, ThreadModel>? model) => new()
        {
            Model = model,
            Read = async (_, next, buffer, offset, token) =>
            {
                most = Math.Max(most, Interlocked.Increment(ref inside));
                await next.ReadAsync(buffer, offset, token);
                Interlocked.Decrement(ref inside);
            },
        };
        await using NbdBackend chain = Compose(
            ThreadModel.Parallel,
            new HookFilter(Counting(null), "outer"),
            new HookFilter(Counting(_ => ThreadModel.SerializeRequests) with { Read = null }, "tight"));
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.SerializeRequests));
        await using NextContext disk = await chain.OpenAsync("a");
        Task[] reads = [Read(disk, 0), Read(disk, 1)];
        Assert.That((Inside.Count, most), Is.EqualTo((1, 1)), "the outer filter was told that it is serialized");
        OpenAll();
        await Task.WhenAll(reads).Soon();
        Assert.That(most, Is.EqualTo(1));
    }

    [Test]
    public async Task A_filter_that_shields_a_serialized_plugin_runs_in_parallel_and_the_plugin_does_not()
    {
        NextContext? shared = null;
        int inside = 0;
        var filter = new HookFilter(new Hooks
        {
            Model = _ => ThreadModel.Parallel,
            Start = async (backend, token) => shared = await backend.OpenNextAsync(false, "common", null, token),
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
            Read = (_, next, buffer, offset, token) =>
            {
                inside++;
                return next.ReadAsync(buffer, offset, token);
            },
        });
        await using NbdBackend chain = Compose(ThreadModel.SerializeConnections, filter);
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.Parallel));
        await using NextContext first = await chain.OpenAsync("a").Soon();
        await using NextContext second = await chain.OpenAsync("b").Soon();
        Task[] reads = [Read(first, 0), Read(second, 1), Read(first, 2)];
        Assert.That((inside, Inside.Count), Is.EqualTo((3, 1)));
        OpenAll();
        await Task.WhenAll(reads).Soon();
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
    }

    [Test]
    public async Task Under_load_a_serialized_plugin_never_has_two_calls_inside()
    {
        int inside = 0;
        int most = 0;
        await using NbdBackend chain = Compose(ThreadModel.SerializeAllRequests);
        _plugin.Script.OnCall = async (_, _) =>
        {
            int now = Interlocked.Increment(ref inside);
            most = Math.Max(most, now);
            await Task.Yield();
            Interlocked.Decrement(ref inside);
        };
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => Task.Run(async () =>
        {
            for (int j = 0; j < 20; j++)
            {
                await using NextContext disk = await chain.OpenAsync("x");
                await disk.ReadAsync(new byte[1], j, None);
                await disk.WriteAsync(new byte[1], j, RequestFlags.Fua, None);
            }
        }))).Soon();
        Assert.That((most, inside), Is.EqualTo((1, 0)));
    }

    private NbdBackend Compose(ThreadModel model, params INbdFilter[] filters)
    {
        _plugin = new RecordingPlugin(_calls) { ThreadModel = model };
        _plugin.Script.OnCall = (call, token)
            => call.Callback == "read" && _gates.TryGetValue(call.Offset, out Gate? gate) ? gate.PassAsync(token) : default;
        return NbdBackend.Compose(_plugin, filters);
    }

    private static Task Read(NextContext context, long offset) => context.ReadAsync(new byte[1], offset, None).AsTask();

    private void OpenAll()
    {
        foreach (Gate gate in _gates.Values)
        {
            gate.Open();
        }
    }
}
