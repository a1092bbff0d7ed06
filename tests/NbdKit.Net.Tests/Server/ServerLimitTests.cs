using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>What a client may use up: places, time and patience.</summary>
public sealed class ServerLimitTests
{
    private const int LongReply = 8 << 20;

    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _chain = null!;
    private FakeTimeProvider _time = null!;
    private Gate _gate = null!;
    private ChainServer? _server;

    [SetUp]
    public void SetUp()
    {
        _chain = new RecordedChain();
        _time = new FakeTimeProvider();
        _gate = new Gate();
    }

    [TearDown]
    public async Task Stop()
    {
        _gate.Open();
        if (_server is not null)
        {
            await _server.DisposeAsync();
            _server = null;
        }
        RecordedChain.AssertBalanced(_chain.Calls.Calls);
    }

    [Test]
    [Property("Threat", "P03")]
    public async Task More_clients_than_allowed_are_closed_at_once_and_a_place_that_is_free_is_given_again()
    {
        await ServeAsync(new NbdServerOptions { MaxConnections = 2 });
        WireClient first = await _server!.TransmitAsync();
        await _server.HaggleAsync();
        WireClient third = _server.Connect();
        await third.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That(_server.Server.Connections, Has.Count.EqualTo(2));
        Assert.That(_chain.Calls.Count("plugin", "preconnect"), Is.EqualTo(2));
        await first.SendRequestAsync(Cmd.Disc);
        await first.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        await _server.TransmitAsync();
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Threat", "P02")]
    public async Task A_handshake_that_takes_too_long_is_cut_off(bool greeted)
    {
        await ServeAsync();
        WireClient client = _server!.Connect();
        if (greeted)
        {
            await client.GreetAsync();
            await client.ExpectHagglingAsync();
        }
        else
        {
            await client.ReadGreetingAsync();
        }
        _time.Advance(TimeSpan.FromSeconds(9.75));
        Assert.That(client.Ended.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(0.25));
        await client.ExpectGoneAsync(NbdDisconnectReason.Timeout);
    }

    [Test]
    public async Task Transmission_has_no_time_limit_between_messages()
    {
        await ServeAsync();
        WireClient client = await _server!.TransmitAsync();
        await client.ReadDataAsync(0, 1);
        _time.Advance(TimeSpan.FromDays(1));
        await client.ReadDataAsync(0, 1);
    }

    [Test]
    public async Task The_time_that_opening_takes_is_not_the_client_s()
    {
        await ServeAsync();
        Block("open", heed: true);
        WireClient client = await _server!.HaggleAsync();
        _time.Advance(TimeSpan.FromSeconds(6));
        Task<OptionResult> going = client.TryGoAsync("disk");
        await _gate.ArrivedAsync();
        _time.Advance(TimeSpan.FromSeconds(25));
        Assert.That(client.Ended.IsCompleted, Is.False);
        _gate.Open();
        Assert.That((await going.Soon()).IsAck);
        await client.ReadDataAsync(0, 1);
    }

    [Test]
    public async Task What_is_left_of_the_handshake_s_time_counts_on_after_an_open()
    {
        await ServeAsync();
        Block("open", heed: true);
        WireClient client = await _server!.HaggleAsync();
        _time.Advance(TimeSpan.FromSeconds(6));
        Task<OptionResult> asking = client.InfoAsync("disk");
        await _gate.ArrivedAsync();
        _time.Advance(TimeSpan.FromSeconds(25));
        _gate.Open();
        Assert.That((await asking.Soon()).IsAck);
        await client.ExpectHagglingAsync();
        _time.Advance(TimeSpan.FromSeconds(3.75));
        await client.ExpectHagglingAsync();
        _time.Advance(TimeSpan.FromSeconds(0.5));
        await client.ExpectGoneAsync(NbdDisconnectReason.Timeout);
    }

    [TestCase("open")]
    [TestCase("info")]
    [Property("Threat", "P33")]
    public async Task An_open_that_takes_too_long_is_given_up_and_the_client_is_told(string callback)
    {
        await ServeAsync();
        Block(callback, heed: true);
        WireClient client = await _server!.HaggleAsync();
        Task<OptionResult> going = client.TryGoAsync("disk");
        await _gate.ArrivedAsync();
        _time.Advance(TimeSpan.FromSeconds(30));
        OptionResult refused = await going.Soon();
        Assert.That((refused.Type, refused.Final.Text), Is.EqualTo((Rep.Unknown, "opening the export took too long")));
        _chain.Plugin.Script.OnCall = null;
        await client.GoAsync("disk");
    }

    [TestCase("open")]
    [TestCase("info")]
    [Property("Threat", "P33")]
    public async Task What_an_open_that_was_given_up_still_opens_is_closed_before_the_chain_ends(string callback)
    {
        await ServeAsync();
        Block(callback, heed: false);
        WireClient client = await _server!.HaggleAsync();
        Task<OptionResult> going = client.TryGoAsync("disk");
        await _gate.ArrivedAsync();
        _time.Advance(TimeSpan.FromSeconds(30));
        Assert.That((await going.Soon()).Type, Is.EqualTo(Rep.Unknown));
        await client.SendOptionAsync(Opt.Abort);
        await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        Task stopping = _server.Server.StopAsync();
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.Zero);
        _gate.Open();
        await stopping.Soon();
        Assert.That(_chain.Calls.Lines.TakeLast(2), Is.EqualTo(new[] { "plugin#1.close", "plugin.cleanup" }));
    }

    [TestCase(1, "inside a header")]
    [TestCase(28, "before the payload of a small write")]
    [TestCase(28 + 100, "inside the payload of a small write")]
    [Property("Threat", "P15")]
    public async Task A_client_that_stops_inside_a_message_is_cut_off(int sent, string where)
        => await StallsAsync(WireBytes.Request(Cmd.Write, 1, 0, 4096), sent, where);

    [TestCase(28, "before the payload of a large write")]
    [TestCase(28 + 5, "inside the payload of a large write")]
    [Property("Threat", "P15")]
    public async Task A_client_that_stops_inside_a_large_write_is_cut_off(int sent, string where)
    {
        _chain = new RecordedChain(1 << 20, []);
        await StallsAsync(WireBytes.Request(Cmd.Write, 1, 0, 1 << 20), sent, where);
    }

    [TestCase(28, "before the payload of a refused write")]
    [TestCase(28 + 5, "inside the payload of a refused write")]
    public async Task A_client_that_stops_inside_a_refused_write_is_cut_off(int sent, string where)
        => await StallsAsync(WireBytes.Request(Cmd.Write, 1, 1ul << 40, 4096), sent, where);

    [Test]
    [Property("Threat", "P37")]
    public async Task A_client_that_takes_no_replies_is_cut_off()
    {
        await ServeAsync();
        WireClient client = _server!.Connect(pipes: new PipePair(serverOutputLimit: 4096));
        await client.GreetAsync();
        await client.GoAsync("disk");
        for (int i = 0; i < 4; i++)
        {
            await client.SendRequestAsync(Cmd.Read, 0, 16_384);
        }
        // The clock runs from the moment when the sending got stuck, which nobody outside can see.
        await _time.AdvanceUntilAsync(client.Ended);
        await client.ExpectEndAsync(NbdDisconnectReason.Timeout);
    }

    [Test]
    public async Task A_client_that_takes_a_long_reply_slowly_is_not_cut_off()
    {
        _chain = new RecordedChain(LongReply, []);
        await ServeAsync();
        WireClient client = _server!.Connect(pipes: new PipePair(serverOutputLimit: 4096));
        await client.GreetAsync();
        await client.GoAsync("disk");
        await TakeSlowlyAsync(client);
    }

    [Test]
    public async Task A_client_that_takes_a_long_reply_slowly_inside_TLS_over_a_stream_is_not_cut_off()
    {
        _chain = new RecordedChain(LongReply, []);
        await ServeAsync(new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) });
        var pipes = new PipePair(serverOutputLimit: 4096);
        var outside = new WireClient(pipes.Client, _server!.Server.ServeAsync(new DuplexPipeStream(pipes.Server), None));
        await outside.GreetAsync();
        WireClient client = await outside.StartTlsAsync();
        await client.GoAsync("disk");
        await TakeSlowlyAsync(client);
        await outside.CutAsync();
    }

    [Test]
    public async Task Time_in_which_the_process_stood_still_is_not_the_clients()
    {
        await ServeAsync();
        WireClient client = await _server!.HaggleAsync();
        _time.Advance(TimeSpan.FromSeconds(1));
        _time.Jump(TimeSpan.FromHours(1));
        _time.Advance(TimeSpan.FromSeconds(8));
        await client.ExpectHagglingAsync();
        _time.Advance(TimeSpan.FromSeconds(1.5));
        await client.ExpectGoneAsync(NbdDisconnectReason.Timeout);
    }

    [Test]
    public async Task Infinite_limits_cut_nobody_off()
    {
        await ServeAsync(new NbdServerOptions
        {
            HandshakeTimeout = Timeout.InfiniteTimeSpan,
            OpenTimeout = Timeout.InfiniteTimeSpan,
            StallTimeout = Timeout.InfiniteTimeSpan,
        });
        WireClient client = await _server!.HaggleAsync();
        _time.Advance(TimeSpan.FromDays(1));
        await client.GoAsync("disk");
        byte[] request = WireBytes.Request(Cmd.Read, client.Expect(Cmd.Read, 0, 1).Cookie, 0, 1);
        await client.SendAsync(request.AsMemory(0, 5));
        _time.Advance(TimeSpan.FromDays(1));
        await client.SendAsync(request.AsMemory(5));
        Assert.That((await client.ReadReplyAsync()).Error, Is.EqualTo(Errno.Ok));
    }

    /// <summary>Takes a long reply piece by piece, for longer than anything may stand still.</summary>
    private async Task TakeSlowlyAsync(WireClient client)
    {
        await client.SendRequestAsync(Cmd.Read, 0, LongReply);
        for (int taken = 0; taken < LongReply; taken += 1 << 20)
        {
            await client.ReadAsync(1 << 20);
            _time.Advance(TimeSpan.FromSeconds(40));
        }
        await client.ReadAsync(16);
        Assert.That(client.Ended.IsCompleted, Is.False);
        await client.ReadDataAsync(0, 512);
    }

    private async Task StallsAsync(byte[] message, int sent, string where)
    {
        await ServeAsync();
        WireClient client = await _server!.TransmitAsync();
        await client.ReadDataAsync(0, 1);
        byte[] bytes = [.. message, .. new byte[1 << 20]];
        await client.SendAsync(bytes.AsMemory(0, sent));
        await _time.AdvanceUntilAsync(client.Ended);
        Assert.That(client.Ended.IsCompleted, where);
        await client.ExpectGoneAsync(NbdDisconnectReason.Timeout);
    }

    private async Task ServeAsync(NbdServerOptions? options = null)
        => _server = await ChainServer.StartAsync(_chain.Backend, (options ?? new NbdServerOptions()) with { TimeProvider = _time });

    private void Block(string callback, bool heed)
        => _chain.Plugin.Script.OnCall = (call, token)
            => call.Callback == callback ? _gate.PassAsync(heed ? token : None) : default;
}
