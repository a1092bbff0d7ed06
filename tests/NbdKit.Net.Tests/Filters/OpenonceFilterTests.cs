using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class OpenonceFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly TimeSpan Minute = TimeSpan.FromMinutes(1);

    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin;

    public OpenonceFilterTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task Asking_and_opening_again_and_again_opens_the_plugin_once_until_the_end()
    {
        await using (ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(_plugin, new OpenonceFilter())))
        {
            WireClient first = await server.HaggleAsync();
            Assert.That((await first.InfoAsync("disk")).IsAck);
            await first.GoAsync("disk");
            Assert.That(first.Flags & TxFlag.CanMultiConn, Is.Not.Zero);
            WireClient second = await server.TransmitAsync();
            await first.WriteDataAsync(100, [1, 2, 3]);
            Assert.That(await second.ReadDataAsync(100, 3), Is.EqualTo(new byte[] { 1, 2, 3 }));
            await first.SendRequestAsync(Cmd.Disc);
            await first.ExpectEndAsync();
            await second.SendRequestAsync(Cmd.Disc);
            await second.ExpectEndAsync();
            await (await server.TransmitAsync()).ReadDataAsync(0, 1);
            Assert.That((_calls.Count("plugin", "open"), _calls.Count("plugin", "close")), Is.EqualTo((1, 0)));
        }
        Assert.That(_calls.Lines.Where(line => line.Contains('#')), Is.EqualTo(new[]
        {
            "plugin#1.open", "plugin#1.info", "plugin#1.write", "plugin#1.read", "plugin#1.read", "plugin#1.close",
        }));
        Assert.That(_calls.Lines[^1], Is.EqualTo("plugin.cleanup"));
    }

    [TestCase("open")]
    [TestCase("info")]
    public async Task Clients_that_come_at_once_wait_for_one_open_and_one_that_leaves_does_not_spoil_it(string callback)
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == callback ? gate.PassAsync(token) : default;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new OpenonceFilter());
        using var gone = new CancellationTokenSource();
        Task<NextContext> first = chain.OpenAsync("disk", cancellationToken: gone.Token).AsTask();
        await gate.ArrivedAsync();
        Task<NextContext> second = chain.OpenAsync("disk").AsTask();
        await gone.CancelAsync();
        Assert.That(async () => await first.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(second.IsCompleted, Is.False);
        gate.Open();
        await using NextContext disk = await second.Soon();
        await disk.ReadAsync(new byte[1], 0, None);
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(1));
    }

    [TestCase("open")]
    [TestCase("info")]
    public async Task A_failed_open_fails_for_all_who_waited_and_is_not_remembered(string callback)
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == callback ? gate.PassAsync(token) : default;
        _plugin.Script.Fail(callback, times: 1, NbdError.NoSpace);
        // An idle time must not trip over a context that never came about.
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new OpenonceFilter { IdleTime = Minute, TimeProvider = _time });
        Task<NextContext>[] opens = [chain.OpenAsync("disk").AsTask(), chain.OpenAsync("disk").AsTask()];
        await gate.ArrivedAsync();
        gate.Open();
        foreach (Task<NextContext> open in opens)
        {
            Assert.That(TestData.Failure(() => open.Soon()).Error, Is.EqualTo(NbdError.NoSpace));
        }
        Assert.That(_time.PendingTimers, Is.Zero);
        await using (NextContext disk = await chain.OpenAsync("disk"))
        {
            await disk.ReadAsync(new byte[1], 0, None);
        }
        Assert.That(_calls.Count("plugin", "close"), Is.EqualTo(callback == "info" ? 1 : 0));
        await chain.DisposeAsync();
        _calls.AssertBalanced();
    }

    [Test]
    public async Task Names_read_only_and_encryption_have_contexts_of_their_own_and_the_layers_below_are_told()
    {
        var opened = new List<string>();
        var below = new HookFilter(new Hooks
        {
            Open = (context, token) =>
            {
                opened.Add($"{context.ExportName} {context.ReadOnly} {context.IsTls} {context.IsShared} {context.Connection is null}");
                return context.OpenNextAsync(token);
            },
        });
        // A layer that keeps apart what encrypted clients wrote must be able to do so through a shared context.
        await using NbdBackend chain = NbdBackend.Compose(
            _plugin, new OpenonceFilter(), below, new CowFilter { Store = CowStore.Memory });
        await chain.StartAsync();
        var secure = new NbdConnection(1, NbdPeer.Unknown, None, _ => { }, () => { }) { IsTls = true };
        var plain = new NbdConnection(2, NbdPeer.Unknown, None, _ => { }, () => { });
        await using NextContext secret = await OpenAsync(chain, "a", false, secure);
        await using NextContext secretToo = await OpenAsync(chain, "a", false, secure);
        await using NextContext open = await OpenAsync(chain, "a", false, plain);
        await using NextContext host = await OpenAsync(chain, "a", false, null);
        await using NextContext fixedDisk = await OpenAsync(chain, "a", true, plain);
        await using NextContext other = await OpenAsync(chain, "b", false, plain);
        Assert.That(opened, Is.EqualTo(new[]
        {
            "a False True True True", "a False False True True", "a True False True True", "b False False True True",
        }));
        await secret.WriteAsync(new byte[] { 42 }, 0, RequestFlags.None, None);
        Assert.That(await TestData.ReadAsync(secretToo, 0, 1), Is.EqualTo(new byte[] { 42 }));
        Assert.That(await TestData.ReadAsync(open, 0, 1), Is.EqualTo(new byte[1]), "a plaintext client must not see it");
        Assert.That(await TestData.ReadAsync(host, 0, 1), Is.EqualTo(new byte[1]));
        Assert.That(fixedDisk.Info.CanMultiConn);
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(4));
    }

    [Test]
    public async Task The_default_export_shares_the_context_of_the_export_that_it_is()
    {
        var plugin = new TestPlugin(new TestExport("main"), new TestExport("other")) { DefaultExport = "main" };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new OpenonceFilter());
        await using NextContext named = await chain.OpenAsync("main");
        await using NextContext unnamed = await chain.OpenAsync("");
        Assert.That(plugin.Opened, Is.EqualTo(1));
        await using NextContext other = await chain.OpenAsync("other");
        Assert.That(plugin.Opened, Is.EqualTo(2));
    }

    [Test]
    public async Task A_context_that_nobody_uses_is_closed_after_the_idle_time_and_opened_again_when_needed()
    {
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new OpenonceFilter { IdleTime = Minute, TimeProvider = _time });
        NextContext first = await chain.OpenAsync("disk");
        await using (NextContext second = await chain.OpenAsync("disk"))
        {
            await first.CloseAsync();
            Assert.That(_time.PendingTimers, Is.Zero, "it is in use");
        }
        _time.Advance(Minute - TimeSpan.FromTicks(1));
        await using (NextContext third = await chain.OpenAsync("disk"))
        {
            _time.Advance(Minute);
            await third.ReadAsync(new byte[1], 0, None);
        }
        Assert.That((_calls.Count("plugin", "open"), _calls.Count("plugin", "close")), Is.EqualTo((1, 0)));
        _time.Advance(Minute);
        // Whoever comes now waits until the old one is closed.
        await using NextContext fourth = await chain.OpenAsync("disk").Soon();
        Assert.That(_calls.Lines.Where(line => line.Contains('#')), Is.EqualTo(new[]
        {
            "plugin#1.open", "plugin#1.info", "plugin#1.read", "plugin#1.close", "plugin#2.open", "plugin#2.info",
        }));
    }

    [Test]
    public async Task With_an_idle_time_of_zero_it_is_closed_at_once_and_a_new_open_waits_for_that()
    {
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call.Callback == "close" ? gate.PassAsync(None) : default;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new OpenonceFilter { IdleTime = TimeSpan.Zero });
        await (await chain.OpenAsync("disk")).CloseAsync();
        await gate.ArrivedAsync();
        Task<NextContext> again = chain.OpenAsync("disk").AsTask();
        Assert.That((again.IsCompleted, _calls.Count("plugin", "open")), Is.EqualTo((false, 1)));
        gate.Open();
        await using NextContext disk = await again.Soon();
        Assert.That(_calls.Count("plugin", "open"), Is.EqualTo(2));
    }

    [TestCase(ThreadModel.SerializeConnections)]
    [TestCase(ThreadModel.SerializeAllRequests)]
    [TestCase(ThreadModel.SerializeRequests)]
    public async Task Above_any_plugin_requests_come_in_parallel_and_at_its_door_one_by_one(ThreadModel model)
    {
        int inside = 0;
        int most = 0;
        var plugin = new RecordingPlugin(_calls) { ThreadModel = model };
        plugin.Script.OnCall = async (call, _) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref inside));
            await Task.Yield();
            Interlocked.Decrement(ref inside);
        };
        int waiting = 0;
        var all = new TaskCompletionSource();
        var above = new HookFilter(new Hooks
        {
            Read = async (_, next, buffer, offset, token) =>
            {
                if (Interlocked.Increment(ref waiting) == 20)
                {
                    all.SetResult();
                }
                await all.Task.Soon();
                await next.ReadAsync(buffer, offset, token);
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(plugin, above, new OpenonceFilter());
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.Parallel));
        await using NextContext one = await chain.OpenAsync("disk");
        await using NextContext two = await chain.OpenAsync("disk");
        await Task.WhenAll(Enumerable.Range(0, 20).Select(i => (i % 2 == 0 ? one : two).ReadAsync(new byte[1], i, None).AsTask())).Soon();
        Assert.That((most, _calls.Count("plugin", "read")), Is.EqualTo((1, 20)));
    }

    [Test]
    public void Replies_in_order_stay_in_order()
        => Assert.That(
            new OpenonceFilter().GetThreadModel(ThreadModel.SerializeRetirement), Is.EqualTo(ThreadModel.SerializeRetirement));

    [Test]
    public async Task Over_one_connection_at_a_time_another_export_waits_for_the_last_client_of_the_first()
    {
        var plugin = new RecordingPlugin(_calls) { ThreadModel = ThreadModel.SerializeConnections };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new OpenonceFilter());
        NextContext first = await chain.OpenAsync("a");
        using var gone = new CancellationTokenSource();
        Task<NextContext> impatient = chain.OpenAsync("b", cancellationToken: gone.Token).AsTask();
        Task<NextContext> other = chain.OpenAsync("b").AsTask();
        NextContext second = await chain.OpenAsync("a").Soon();
        await gone.CancelAsync();
        Assert.That(async () => await impatient.Soon(), Throws.InstanceOf<OperationCanceledException>());
        await first.CloseAsync();
        await second.ReadAsync(new byte[1], 0, None);
        Assert.That(other.IsCompleted, Is.False);
        await second.CloseAsync();
        await using NextContext disk = await other.Soon();
        Assert.That(_calls.Lines.Where(line => line.Contains('#')), Is.EqualTo(new[]
        {
            "plugin#1.open", "plugin#1.info", "plugin#1.read", "plugin#1.close", "plugin#2.open", "plugin#2.info",
        }));
        Assert.That(disk.ExportName, Is.EqualTo("b"));
    }

    [Test]
    public async Task Many_clients_of_many_exports_never_open_two_contexts_of_a_plugin_that_takes_one()
    {
        int open = 0;
        int most = 0;
        var plugin = new RecordingPlugin(_calls) { ThreadModel = ThreadModel.SerializeConnections };
        plugin.Script.OnCall = async (call, _) =>
        {
            if (call.Callback == "open")
            {
                most = Math.Max(most, Interlocked.Increment(ref open));
            }
            await Task.Yield();
            if (call.Callback == "close")
            {
                Interlocked.Decrement(ref open);
            }
        };
        NbdBackend chain = NbdBackend.Compose(plugin, new OpenonceFilter());
        await chain.StartAsync();
        await Task.WhenAll(Enumerable.Range(0, 60).Select(i => Task.Run(async () =>
        {
            await using NextContext disk = await chain.OpenAsync($"export {i % 3}");
            await disk.ReadAsync(new byte[1], i, None);
        }))).Soon();
        await chain.DisposeAsync();
        Assert.That((most, open), Is.EqualTo((1, 0)));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task The_end_of_the_chain_gives_up_an_open_that_nobody_waits_for()
    {
        var arrived = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == "open" ? arrived.PassAsync(token) : default;
        NbdBackend chain = NbdBackend.Compose(_plugin, new OpenonceFilter());
        using var gone = new CancellationTokenSource();
        Task<NextContext> open = chain.OpenAsync("disk", cancellationToken: gone.Token).AsTask();
        await arrived.ArrivedAsync();
        await gone.CancelAsync();
        Assert.That(async () => await open.Soon(), Throws.InstanceOf<OperationCanceledException>());
        await chain.DisposeAsync().Soon();
        Assert.That(_calls.Lines.TakeLast(2), Is.EqualTo(new[] { "plugin#1.open failed", "plugin.cleanup" }));
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        var filter = (OpenonceFilter)OpenonceFilter.Entry.Create(new NbdParameters("openonce", [new("openonce-idle", "1.5")]));
        Assert.That(filter.IdleTime, Is.EqualTo(TimeSpan.FromSeconds(1.5)));
        Assert.That(((OpenonceFilter)OpenonceFilter.Entry.Create(new NbdParameters("openonce", []))).IdleTime, Is.Null);
        Assert.That(() => new OpenonceFilter { IdleTime = -Minute }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new OpenonceFilter { IdleTime = TimeSpan.FromDays(50) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new OpenonceFilter { TimeProvider = null! }, Throws.ArgumentNullException);
    }

    private static async Task<NextContext> OpenAsync(NbdBackend chain, string name, bool readOnly, NbdConnection? connection)
    {
        NextContext disk = await chain.OpenEntryAsync(readOnly, name, connection, None);
        await disk.PrepareAsync(None);
        return disk;
    }
}
