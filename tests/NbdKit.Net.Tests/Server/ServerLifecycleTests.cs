using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>The callbacks of a chain that a server serves, whatever its clients do.</summary>
public sealed class ServerLifecycleTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly string[] Layers = ["outer", "middle", "inner", "plugin"];

    private RecordedChain _chain = null!;
    private FakeTimeProvider _time = null!;
    private ChainServer _server = null!;
    private Gate _gate = null!;

    [SetUp]
    public async Task Serve()
    {
        _chain = new RecordedChain("outer", "middle", "inner");
        _time = new FakeTimeProvider();
        _gate = new Gate();
        _server = await ChainServer.StartAsync(_chain.Backend, new NbdServerOptions { TimeProvider = _time });
    }

    [TearDown]
    public async Task Stop()
    {
        _gate.Open();
        await _server.DisposeAsync();
        RecordedChain.AssertBalanced(_chain.Calls.Calls);
    }

    [Test]
    public async Task A_client_that_lists_asks_opens_reads_and_leaves()
    {
        Assert.That(_chain.Take(), Is.EqualTo(new[]
        {
            "plugin.ready", "inner.ready", "middle.ready", "outer.ready",
            "plugin.start", "inner.start", "middle.start", "outer.start",
        }));
        WireClient client = await _server.HaggleAsync();
        Assert.That((await client.OptAsync(Opt.List)).IsAck);
        Assert.That(_chain.Take(), Is.EqualTo(new[]
        {
            "outer.preconnect", "middle.preconnect", "inner.preconnect", "plugin.preconnect",
            "outer.list", "middle.list", "inner.list", "plugin.list", "plugin.default",
        }));

        string[] opened =
        [
            "outer#N.open", "middle#N.open", "inner#N.open", "plugin#N.open", "plugin#N.info",
            "inner#N.prepare", "inner#N.info", "middle#N.prepare", "middle#N.info", "outer#N.prepare", "outer#N.info",
        ];
        string[] closed =
        [
            "outer#N.finalize", "middle#N.finalize", "inner#N.finalize",
            "outer#N.close", "middle#N.close", "inner#N.close", "plugin#N.close",
        ];
        Assert.That((await client.InfoAsync("disk")).IsAck);
        Assert.That(_chain.Take(), Is.EqualTo(opened.Concat(closed).Select(line => line.Replace('N', '1'))));
        await client.GoAsync("disk");
        Assert.That(_chain.Take(), Is.EqualTo(opened.Select(line => line.Replace('N', '2'))));

        await client.ReadDataAsync(0, 1);
        Assert.That(_chain.Take(), Is.EqualTo(Layers.Select(name => name + "#2.read")));
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        Assert.That(_chain.Take(), Is.EqualTo(closed.Select(line => line.Replace('N', '2'))));
        await _server.Server.StopAsync().Soon();
        Assert.That(_chain.Take(), Is.EqualTo(Layers.Select(name => name + ".cleanup")));
    }

    [Test]
    public async Task The_default_export_is_asked_for_at_most_once_for_each_connection_and_layer()
    {
        WireClient client = await _server.HaggleAsync();
        await client.InfoAsync("");
        await client.OptAsync(Opt.List);
        await client.GoAsync("");
        foreach (string layer in Layers)
        {
            Assert.That(_chain.Calls.Count(layer, "default"), Is.EqualTo(1), layer);
        }
        await _server.TransmitAsync("");
        Assert.That(_chain.Calls.Count("plugin", "default"), Is.EqualTo(2));
    }

    [Test]
    public async Task A_layer_that_refuses_the_client_turns_it_away_without_a_word()
    {
        _chain.Script("middle").Fail("preconnect", times: 1);
        WireClient client = _server.Connect();
        await client.ExpectGoneAsync(NbdDisconnectReason.Refused);
        Assert.That(_chain.Calls.Count("plugin", "preconnect"), Is.Zero);
        await (await _server.TransmitAsync()).ReadDataAsync(0, 1);
    }

    [Test]
    public async Task A_list_that_fails_is_answered_and_haggling_goes_on()
    {
        _chain.Script("inner").Fail("list", times: 1, NbdError.IoError);
        WireClient client = await _server.HaggleAsync();
        Assert.That((await client.OptAsync(Opt.List)).Type, Is.EqualTo(Rep.Platform));
        await client.GoAsync("disk");
    }

    [TestCase("outer", "open")]
    [TestCase("inner", "open")]
    [TestCase("plugin", "open")]
    [TestCase("plugin", "info")]
    [TestCase("middle", "prepare")]
    [TestCase("outer", "info")]
    public async Task An_open_that_fails_is_answered_with_its_reason_and_the_next_one_works(string layer, string callback)
    {
        _chain.Script(layer).Fail(callback, times: 1, NbdError.PermissionDenied);
        WireClient client = await _server.HaggleAsync();
        OptionResult failed = await client.TryGoAsync("disk");
        Assert.That(failed.Type, Is.EqualTo(Rep.Policy));
        Assert.That(failed.Final.Text, Is.EqualTo($"{layer}#1.{callback} is told to fail"));
        Assert.That(_chain.Calls.Count("plugin", "close"), Is.EqualTo(_chain.Calls.Count("plugin", "open") - (layer == "plugin" && callback == "open" ? 1 : 0)));
        await client.GoAsync("disk");
        await client.ReadDataAsync(0, 1);
    }

    [TestCase("finalize")]
    [TestCase("close")]
    public async Task A_failure_at_the_end_is_logged_and_is_no_concern_of_the_client(string callback)
    {
        _chain.Script("middle").Fail(callback);
        WireClient client = await _server.HaggleAsync();
        Assert.That((await client.InfoAsync("disk")).IsAck);
        await client.GoAsync("disk");
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        Assert.That(_server.Warnings, Is.EqualTo(Enumerable.Repeat("middle failed in " + callback, 2)));
    }

    [TestCase(typeof(NbdException), Errno.NoSpc)]
    [TestCase(typeof(IOException), Errno.Io)]
    [TestCase(typeof(NotSupportedException), Errno.Inval)]
    [TestCase(typeof(UnauthorizedAccessException), Errno.Perm)]
    [TestCase(typeof(OutOfMemoryException), Errno.NoMem)]
    [TestCase(typeof(OperationCanceledException), Errno.Io)]
    [TestCase(typeof(NullReferenceException), Errno.Io)]
    [TestCase(typeof(AccessViolationException), Errno.Io)]
    public async Task A_request_that_throws_is_answered_and_the_connection_goes_on(Type type, uint expected)
    {
        Exception thrown = type == typeof(NbdException)
            ? new NbdException(NbdError.NoSpace, "full")
            : (Exception)Activator.CreateInstance(type)!;
        WireClient client = await _server.TransmitAsync();
        foreach (bool late in new[] { false, true })
        {
            _chain.Script("inner").Fail("read", _ => thrown);
            _chain.Script("inner").OnCall = late ? async (_, _) => await Task.Yield() : null;
            await client.ExpectCallAsync(expected, Cmd.Read, 0, 4);
            _chain.Script("inner").Succeed("read");
            await client.ReadDataAsync(0, 4);
        }
    }

    [TestCase(true)]
    [TestCase(false)]
    public async Task A_client_that_vanishes_before_it_opened_anything_leaves_nothing(bool greeted)
    {
        WireClient client = _server.Connect();
        if (greeted)
        {
            await client.GreetAsync();
        }
        await client.CutAsync();
        await client.ExpectEndAsync();
        Assert.That(_chain.Calls.Count("plugin", "open"), Is.Zero);
    }

    [TestCase("open")]
    [TestCase("info")]
    public async Task A_client_that_vanishes_while_its_export_is_opened_leaves_nothing_open(string callback)
    {
        Block(callback, heed: false);
        WireClient client = await _server.HaggleAsync();
        await client.SendOptionAsync(Opt.Go, WireBytes.InfoRequest("disk"u8));
        await _gate.ArrivedAsync();
        await client.CutAsync();
        _gate.Open();
        await client.ExpectEndAsync();
        Assert.That((_chain.Calls.Count("plugin", "open"), _chain.Calls.Count("plugin", "close")), Is.EqualTo((1, 1)));
    }

    [Test]
    public async Task An_idle_client_that_vanishes_is_closed()
    {
        WireClient client = await _server.TransmitAsync();
        await client.CutAsync();
        await client.ExpectEndAsync(NbdDisconnectReason.ClientGone);
        Assert.That(_chain.Calls.Count("plugin", "close"), Is.EqualTo(1));
    }

    [TestCase(true)]
    [TestCase(false)]
    public async Task A_request_of_a_client_that_vanished_is_told_after_a_grace_and_waited_for(bool heed)
    {
        Block("read", heed);
        WireClient client = await _server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        await client.CutAsync();
        await _time.WaitForTimersAsync(2);
        Assert.That(client.Ended.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(5));
        if (!heed)
        {
            Assert.That(client.Ended.IsCompleted, Is.False);
            Assert.That(_chain.Calls.Count("outer", "finalize"), Is.Zero, "a request is still in flight");
            _gate.Open();
        }
        await client.ExpectEndAsync(NbdDisconnectReason.ClientGone);
    }

    [Test]
    public async Task A_request_of_a_client_whose_connection_broke_is_told_at_once()
    {
        Block("read", heed: true);
        var pipes = new PipePair();
        WireClient client = _server.Connect(pipes: pipes);
        await client.GreetAsync();
        await client.GoAsync("disk");
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        await pipes.Client.Output.CompleteAsync(new IOException("reset"));
        await client.ExpectEndAsync(NbdDisconnectReason.ConnectionLost);
    }

    [Test]
    public async Task A_request_of_a_client_that_broke_the_protocol_is_told_after_a_grace()
    {
        Block("read", heed: true);
        WireClient client = await _server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await _gate.ArrivedAsync();
        await client.SendAsync(new byte[28]);
        await _time.WaitForTimersAsync(2);
        _time.Advance(TimeSpan.FromSeconds(5));
        await client.ExpectEndAsync(NbdDisconnectReason.ProtocolViolation);
    }

    [Test]
    public async Task A_stop_lets_go_of_clients_in_every_phase()
    {
        WireClient silent = _server.Connect();
        WireClient haggling = await _server.HaggleAsync();
        WireClient idle = await _server.TransmitAsync();
        Block("read", heed: false);
        WireClient busy = await _server.TransmitAsync();
        await busy.SendRequestAsync(Cmd.Read, 0, 4);
        await _gate.ArrivedAsync();
        Task stopping = _server.Server.StopAsync();
        await idle.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await busy.ExpectCallAsync(Errno.Shutdown, Cmd.Read, 0, 1);
        await haggling.ExpectOptAsync(Rep.Shutdown, Opt.List);
        await haggling.ExpectOptAsync(Rep.Ack, Opt.Abort);
        await haggling.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        Assert.That((stopping.IsCompleted, busy.Ended.IsCompleted), Is.EqualTo((false, false)));
        _gate.Open();
        Assert.That((await busy.ReadReplyAsync()).Error, Is.EqualTo(Errno.Ok), "what was in flight is finished and answered");
        await busy.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await silent.CutAsync();
        await stopping.Soon();
        Assert.That(_chain.Take().TakeLast(4), Is.EqualTo(Layers.Select(name => name + ".cleanup")));
    }

    [TestCase("open", true)]
    [TestCase("info", true)]
    [TestCase("read", true)]
    public async Task A_stop_that_may_not_wait_fires_the_token_of_what_runs(string callback, bool heed)
    {
        Block(callback, heed);
        WireClient client = await _server.HaggleAsync();
        await client.SendOptionAsync(Opt.Go, WireBytes.InfoRequest("disk"u8));
        if (callback == "read")
        {
            await client.ReadOptionResultAsync(Opt.Go);
            await client.SendRequestAsync(Cmd.Read, 0, 1);
        }
        await _gate.ArrivedAsync();
        await _server.Server.StopAsync(new CancellationToken(canceled: true)).Soon();
        await client.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
        Assert.That(_chain.Take().TakeLast(4), Is.EqualTo(Layers.Select(name => name + ".cleanup")));
    }

    private void Block(string callback, bool heed)
        => _chain.Plugin.Script.OnCall = (call, token)
            => call.Callback == callback ? _gate.PassAsync(heed ? token : None) : default;
}
