using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>The end of a server: at any moment, however often, and whatever its layers do.</summary>
public sealed class ServerStopTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _chain = null!;
    private FakeTimeProvider _time = null!;
    private Gate _gate = null!;

    [SetUp]
    public void SetUp()
    {
        _chain = new RecordedChain("filter");
        _time = new FakeTimeProvider();
        _gate = new Gate();
    }

    [TearDown]
    public void TearDown() => _gate.Open();

    [Test]
    [Property("Threat", "N16")]
    public async Task A_stop_before_the_start_ends_the_server_and_leaves_the_chain_to_others()
    {
        var server = new NbdServer(_chain.Backend, Options);
        await server.StopAsync().Soon();
        Assert.That(server.Stopped.IsCompletedSuccessfully);
        Assert.That(async () => await server.StartAsync(), Throws.InstanceOf<ObjectDisposedException>());
        var pipes = new PipePair();
        Assert.That(async () => await server.ServeAsync(pipes.Server), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That((await pipes.Client.Input.ReadAsync()).IsCompleted, "what cannot be served is closed");
        Assert.That(_chain.Calls.Lines, Is.Empty);
        await using NextContext disk = await _chain.Backend.OpenAsync("x");
    }

    [Test]
    [Property("Threat", "N16")]
    public async Task Stops_may_be_repeated_and_concurrent()
    {
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        WireClient client = await server.TransmitAsync();
        await Task.WhenAll(Enumerable.Range(0, 8).Select(i => Task.Run(
            async () => await (i % 2 == 0 ? server.Server.StopAsync() : server.Server.DisposeAsync().AsTask())))).Soon();
        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await server.DisposeAsync();
        Assert.That((_chain.Calls.Count("filter", "cleanup"), _chain.Calls.Count("plugin", "cleanup")), Is.EqualTo((1, 1)));
    }

    [TestCase("preconnect")]
    [TestCase("open")]
    [TestCase("info")]
    [TestCase("read")]
    [TestCase("close")]
    [TestCase("cleanup")]
    public async Task A_plugin_that_is_stuck_does_not_hold_a_stop_and_is_cleaned_up_when_it_comes_back(string callback)
    {
        Block(callback);
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        WireClient client = server.Connect();
        if (callback is not "preconnect" and not "cleanup")
        {
            await client.GreetAsync();
            await client.SendOptionAsync(Opt.Go, WireBytes.InfoRequest("disk"u8));
        }
        if (callback is "read" or "close")
        {
            await client.ReadOptionResultAsync(Opt.Go);
            await client.SendRequestAsync(callback == "read" ? Cmd.Read : Cmd.Disc, 0, callback == "read" ? 1u : 0);
        }
        if (callback == "cleanup")
        {
            await client.CutAsync();
        }
        else
        {
            await _gate.ArrivedAsync();
        }
        Task stopping = server.Server.StopAsync();
        if (callback == "cleanup")
        {
            await _gate.ArrivedAsync();
        }
        await _time.AdvanceUntilAsync(stopping);
        await stopping.Soon();
        Assert.That(server.Server.Stopped.IsCompleted);
        Assert.That(server.Warnings, Is.Not.Empty);
        Assert.That(_chain.Calls.Lines[^1], Is.EqualTo(callback == "preconnect" ? "plugin.preconnect" : $"plugin{(callback == "cleanup" ? "" : "#1")}.{callback}"));
        var cleaned = new TaskCompletionSource();
        _chain.Plugin.Script.OnCall = (call, _) =>
        {
            if (call.Callback == "cleanup")
            {
                cleaned.SetResult();
            }
            return default;
        };
        _gate.Open();
        if (callback != "cleanup")
        {
            await cleaned.Task.Soon();
        }
        Assert.That(_chain.Calls.Lines.TakeLast(2), Is.EqualTo(new[] { "filter.cleanup", "plugin.cleanup" }));
        RecordedChain.AssertBalanced(_chain.Calls.Calls);
    }

    [Test]
    public async Task A_stuck_plugin_holds_a_stop_for_its_timeout_and_half_a_second()
    {
        Block("read");
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        WireClient client = await server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        Task stopping = server.Server.StopAsync();
        // One timer watches the connections, the other the stop.
        await _time.WaitForTimersAsync(2);
        _time.Advance(TimeSpan.FromSeconds(4.9));
        Assert.That(client.Ended.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(0.1));
        await _time.WaitForTimersAsync(2);
        Assert.That(stopping.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(0.5));
        await stopping.Soon();
    }

    [Test]
    public async Task A_client_that_is_silent_in_its_handshake_holds_a_stop_for_a_moment_and_requests_in_flight_go_on()
    {
        Block("read");
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        WireClient silent = await server.HaggleAsync();
        WireClient fresh = server.Connect();
        WireClient busy = await server.TransmitAsync();
        await busy.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        Task stopping = server.Server.StopAsync();
        await _time.WaitForTimersAsync(2);
        _time.Advance(TimeSpan.FromSeconds(0.5));
        await silent.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
        await fresh.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
        Assert.That(busy.Ended.IsCompleted, Is.False);
        _gate.Open();
        Assert.That((await busy.ReadReplyAsync()).Error, Is.EqualTo(Errno.Ok));
        await busy.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await stopping.Soon();
    }

    [Test]
    public async Task A_plugin_that_is_stuck_in_its_start_does_not_hold_a_stop()
    {
        Block("start");
        var server = new NbdServer(_chain.Backend, Options);
        Task starting = server.StartAsync().AsTask();
        await _gate.ArrivedAsync();
        Task stopping = server.StopAsync();
        await _time.AdvanceUntilAsync(stopping);
        await stopping.Soon();
        _gate.Open();
        Assert.That(async () => await starting.Soon(), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(_chain.Calls.Lines.TakeLast(2), Is.EqualTo(new[] { "filter.cleanup", "plugin.cleanup" }));
    }

    [Test]
    public async Task A_stop_during_the_start_gives_the_start_up()
    {
        _chain.Plugin.Script.OnCall = (call, token) => call.Callback == "start" ? _gate.PassAsync(token) : default;
        var server = new NbdServer(_chain.Backend, Options);
        Task starting = server.StartAsync().AsTask();
        await _gate.ArrivedAsync();
        await server.StopAsync().Soon();
        Assert.That(async () => await starting.Soon(), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(_chain.Calls.Lines[^1], Is.EqualTo("plugin.cleanup"));
    }

    [Test]
    public async Task A_second_stop_can_hurry_the_first()
    {
        _chain.Plugin.Script.OnCall = (call, token) => call.Callback == "read" ? _gate.PassAsync(token) : default;
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        WireClient client = await server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        Task patient = server.Server.StopAsync();
        using var hurry = new CancellationTokenSource();
        Task impatient = server.Server.StopAsync(hurry.Token);
        await hurry.CancelAsync();
        await Task.WhenAll(patient, impatient).Soon();
        await client.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
    }

    [Test]
    public async Task Finalize_and_cleanup_are_told_when_the_end_has_to_be_quick()
    {
        var tokens = new List<CancellationToken>();
        var filter = new HookFilter(new Hooks
        {
            Finalize = (_, _, token) =>
            {
                tokens.Add(token);
                return new ValueTask(_gate.PassAsync(token).AsTask());
            },
            Cleanup = (_, token) =>
            {
                tokens.Add(token);
                return default;
            },
        });
        ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(_chain.Plugin, filter), Options);
        await server.TransmitAsync();
        Task stopping = server.Server.StopAsync();
        await _gate.ArrivedAsync();
        Assert.That(tokens[0].IsCancellationRequested, Is.False);
        await _time.AdvanceUntilAsync(stopping);
        await stopping.Soon();
        Assert.That(tokens.Select(token => token.IsCancellationRequested), Is.EqualTo(new[] { true, true }));
        Assert.That(_chain.Calls.Count("plugin", "close"), Is.EqualTo(1));
    }

    [Test]
    public async Task Clients_that_come_while_the_server_stops_are_turned_away_and_nothing_runs_after_the_cleanup()
    {
        for (int round = 0; round < 20; round++)
        {
            var chain = new RecordedChain("filter");
            await using ChainServer server = await ChainServer.StartAsync(chain.Backend, new NbdServerOptions());
            var pipes = new List<PipePair>();
            var served = new List<Task<NbdDisconnect>>();
            using var go = new ManualResetEventSlim();
            Task coming = Task.Run(() =>
            {
                go.Wait();
                for (int i = 0; i < 20; i++)
                {
                    var pair = new PipePair();
                    pipes.Add(pair);
                    served.Add(server.Server.ServeAsync(pair.Server));
                }
            });
            Task stopping = Task.Run(async () =>
            {
                go.Wait();
                await server.Server.StopAsync(new CancellationToken(canceled: true));
            });
            go.Set();
            await coming.Soon();
            await stopping.Soon();
            Assert.That(chain.Calls.Lines[^1], Is.EqualTo("plugin.cleanup"), $"round {round}");
            foreach (Task<NbdDisconnect> one in served)
            {
                try
                {
                    Assert.That((await one.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ServerStopped).Or.EqualTo(NbdDisconnectReason.Refused));
                }
                catch (ObjectDisposedException)
                {
                    // It came after the stop had begun.
                }
            }
            Assert.That(chain.Calls.Lines[^1], Is.EqualTo("plugin.cleanup"), $"round {round}");
        }
    }

    [Test]
    public async Task A_core_that_has_stopped_serves_nobody()
    {
        await _chain.Backend.StartAsync();
        using var core = new ServerCore(_chain.Backend, Options, () => { });
        await core.StopAsync(None).Soon();
        var transport = new ScriptedTransport();
        NbdDisconnect end = await core.ServeAsync(transport, None).Soon();
        Assert.That((end.Reason, transport.IsAborted), Is.EqualTo((NbdDisconnectReason.ServerStopped, true)));
        Assert.That(_chain.Calls.Count("plugin", "preconnect"), Is.Zero);
        await _chain.Backend.DisposeAsync();
    }

    [Test]
    public async Task Two_servers_on_one_chain_end_it_with_the_last_of_them()
    {
        ChainServer first = await ChainServer.StartAsync(_chain.Backend, Options);
        ChainServer second = await ChainServer.StartAsync(_chain.Backend, Options with { ReadOnly = true });
        Assert.That(_chain.Calls.Count("plugin", "start"), Is.EqualTo(1));
        WireClient writing = await first.TransmitAsync();
        WireClient reading = await second.TransmitAsync();
        await writing.WriteDataAsync(3, [42]);
        Assert.That(await reading.ReadDataAsync(3, 1), Is.EqualTo(new byte[] { 42 }));
        Assert.That(reading.Flags & TxFlag.ReadOnly, Is.Not.Zero);
        await first.DisposeAsync();
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.Zero);
        await reading.ReadDataAsync(0, 1);
        await second.DisposeAsync();
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.EqualTo(1));
        RecordedChain.AssertBalanced(_chain.Calls.Calls);
    }

    [TestCase(true)]
    [TestCase(false)]
    public async Task A_host_and_a_server_share_a_chain_and_the_last_of_them_ends_it(bool hostFirst)
    {
        ChainServer server = await ChainServer.StartAsync(_chain.Backend, Options);
        NextContext disk = await _chain.Backend.OpenAsync("host's");
        WireClient client = await server.TransmitAsync();
        await disk.WriteAsync(new byte[] { 7 }, 0, RequestFlags.None, None);
        Assert.That(await client.ReadDataAsync(0, 1), Is.EqualTo(new byte[] { 7 }));
        if (hostFirst)
        {
            await disk.DisposeAsync();
            await _chain.Backend.DisposeAsync();
            await client.ReadDataAsync(0, 1);
            Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.Zero);
            await server.DisposeAsync();
        }
        else
        {
            await server.DisposeAsync();
            await disk.ReadAsync(new byte[1], 0, None);
            Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.Zero);
            await disk.DisposeAsync();
            await _chain.Backend.DisposeAsync();
        }
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.EqualTo(1));
        RecordedChain.AssertBalanced(_chain.Calls.Calls);
    }

    [Test]
    public async Task A_server_that_cannot_start_its_chain_says_so_and_ends_nothing_twice()
    {
        _chain.Plugin.Script.Fail("ready");
        var server = new NbdServer(_chain.Backend, Options);
        Assert.That(async () => await server.StartAsync(), Throws.InstanceOf<NbdException>());
        Assert.That(async () => await server.StartAsync(), Throws.InstanceOf<ObjectDisposedException>());
        await server.DisposeAsync().Soon();
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.Zero);
    }

    private NbdServerOptions Options => new() { TimeProvider = _time };

    private void Block(string callback)
        => _chain.Plugin.Script.OnCall = (call, _) => call.Callback == callback ? _gate.PassAsync(None) : default;
}
