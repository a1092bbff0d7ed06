using System.IO.Pipelines;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>What the host is told of its clients, and every reason for which one may be gone.</summary>
public sealed class HostHookTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _chain = null!;
    private FakeTimeProvider _time = null!;
    private ChainServer _server = null!;
    private TaskCompletionSource<NbdDisconnect> _disconnected = null!;

    [SetUp]
    public async Task Serve()
    {
        _chain = new RecordedChain("filter");
        _time = new FakeTimeProvider();
        _disconnected = new TaskCompletionSource<NbdDisconnect>(TaskCreationOptions.RunContinuationsAsynchronously);
        _server = await ChainServer.StartAsync(_chain.Backend, new NbdServerOptions
        {
            TimeProvider = _time,
            Connected = connection => _chain.Calls.Add(new RecordedCall("host", $"connected {connection.Id} {connection.Peer}")),
            ExportOpened = (connection, info) =>
                _chain.Calls.Add(new RecordedCall("host", $"opened {connection.ExportName} {info.Size}")),
            Disconnected = (connection, end) =>
            {
                _chain.Calls.Add(new RecordedCall("host", $"disconnected {connection.Id}"));
                _disconnected.SetResult(end);
            },
        });
        _chain.Calls.Clear();
    }

    [TearDown]
    public async Task Stop() => await _server.DisposeAsync();

    [Test]
    public async Task The_host_is_told_when_a_client_came_opened_and_left()
    {
        WireClient client = await _server.TransmitAsync();
        Assert.That(_server.Server.Connections.Single().ExportName, Is.EqualTo("disk"));
        await client.SendRequestAsync(Cmd.Disc);
        Assert.That((await _disconnected.Task.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
        Assert.That(await client.Ended.Soon(), Is.EqualTo(await _disconnected.Task));
        Assert.That(_chain.Take(), Is.EqualTo(new[]
        {
            "filter.preconnect", "plugin.preconnect", "host.connected 1 stream",
            "filter#1.open", "plugin#1.open", "plugin#1.info", "filter#1.prepare", "filter#1.info",
            $"host.opened disk {_chain.Plugin.Data.Length}",
            "filter#1.finalize", "filter#1.close", "plugin#1.close", "host.disconnected 1",
        }));
        Assert.That(_server.Server.Connections, Is.Empty);
    }

    [Test]
    public async Task ClientDone_by_an_option()
    {
        WireClient client = await _server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Ack, Opt.Abort);
        await EndsAsync(client, NbdDisconnectReason.ClientDone);
    }

    [Test]
    public async Task ClientGone_between_two_messages()
    {
        WireClient client = await _server.TransmitAsync();
        await client.FinishAsync();
        await EndsAsync(client, NbdDisconnectReason.ClientGone);
    }

    [Test]
    public async Task ConnectionLost_inside_a_message()
    {
        WireClient client = await _server.TransmitAsync();
        await client.SendAsync(new byte[] { 0x25, 0x60 });
        await client.FinishAsync();
        await EndsAsync(client, NbdDisconnectReason.ConnectionLost);
    }

    [Test]
    public async Task ProtocolViolation()
    {
        WireClient client = await _server.TransmitAsync();
        await client.SendAsync(new byte[28]);
        await EndsAsync(client, NbdDisconnectReason.ProtocolViolation);
    }

    [Test]
    public async Task Refused_before_the_host_knows_of_the_client()
    {
        _chain.Script("plugin").Fail("preconnect", times: 1);
        WireClient client = _server.Connect();
        await EndsAsync(client, NbdDisconnectReason.Refused);
        Assert.That(_chain.Take(), Is.EqualTo(new[]
        {
            "filter.preconnect", "plugin.preconnect", "plugin.preconnect failed", "host.disconnected 1",
        }));
    }

    [Test]
    public async Task ExportUnavailable()
    {
        _chain.Script("plugin").Fail("open", times: 1);
        WireClient client = await _server.HaggleAsync();
        await client.SendOptionAsync(Opt.ExportName, "disk"u8);
        await EndsAsync(client, NbdDisconnectReason.ExportUnavailable);
    }

    [Test]
    public async Task LimitExceeded()
    {
        WireClient client = await _server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Write, 0, (32 << 20) + 1);
        await EndsAsync(client, NbdDisconnectReason.LimitExceeded);
    }

    [Test]
    public async Task Timeout()
    {
        WireClient client = await _server.HaggleAsync();
        _time.Advance(TimeSpan.FromSeconds(10.25));
        await EndsAsync(client, NbdDisconnectReason.Timeout);
    }

    [Test]
    public async Task Disconnected_by_a_layer()
    {
        WireClient client = await _server.TransmitAsync();
        _server.Server.Connections.Single().Disconnect(force: true);
        await EndsAsync(client, NbdDisconnectReason.Disconnected);
    }

    [Test]
    public async Task ServerStopped()
    {
        WireClient client = await _server.TransmitAsync();
        await _server.Server.StopAsync().Soon();
        await EndsAsync(client, NbdDisconnectReason.ServerStopped);
    }

    [Test]
    public async Task ServerStopped_by_the_token_of_the_call_that_serves_the_client()
    {
        using var cut = new CancellationTokenSource();
        WireClient client = _server.Connect(cut.Token);
        await client.GreetAsync();
        await client.GoAsync("disk");
        await cut.CancelAsync();
        await EndsAsync(client, NbdDisconnectReason.ServerStopped);
    }

    [Test]
    public async Task Faulted_when_the_server_meets_what_it_does_not_expect()
    {
        NbdDisconnect end = await _server.Server.ServeAsync(new FaultyStream(), None).Soon();
        Assert.That(end.Reason, Is.EqualTo(NbdDisconnectReason.Faulted));
        Assert.That(await _disconnected.Task.Soon(), Is.EqualTo(end));
        Assert.That(_server.Warnings, Has.Count.EqualTo(1).And.One.Contains("defect of the server"));
    }

    [Test]
    [Property("Threat", "N18")]
    public async Task Hooks_that_throw_are_logged_and_change_nothing()
    {
        int called = 0;
        Exception Thrown()
        {
            called++;
            return new InvalidOperationException("the host's own business");
        }
        var chain = new RecordedChain();
        await using ChainServer server = await ChainServer.StartAsync(chain.Backend, new NbdServerOptions
        {
            Connected = _ => throw Thrown(),
            ExportOpened = (_, _) => throw Thrown(),
            Disconnected = (_, _) => throw Thrown(),
        });
        WireClient client = await server.TransmitAsync();
        await client.ReadDataAsync(0, 1);
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        Assert.That((called, server.Warnings.Count(text => text == "A hook of the host threw")), Is.EqualTo((3, 3)));
    }

    [Test]
    [Property("Threat", "N18")]
    public async Task A_callback_on_the_token_of_a_connection_that_throws_is_logged_and_changes_nothing()
    {
        foreach (bool force in new[] { true, false })
        {
            _disconnected = new TaskCompletionSource<NbdDisconnect>(TaskCreationOptions.RunContinuationsAsynchronously);
            WireClient client = await _server.TransmitAsync();
            NbdConnection connection = _server.Server.Connections.Single();
            using CancellationTokenRegistration registration = connection.Aborted.Register(
                () => throw new InvalidOperationException("the layer's own business"));
            if (force)
            {
                connection.Disconnect(force: true);
            }
            else
            {
                await client.SendRequestAsync(Cmd.Disc);
            }
            await EndsAsync(client, force ? NbdDisconnectReason.Disconnected : NbdDisconnectReason.ClientDone);
        }
        Assert.That(_chain.Calls.Count("plugin", "close"), Is.EqualTo(2));
    }

    [Test]
    public async Task A_stream_that_throws_when_it_is_disposed_of_harms_nobody()
    {
        var pipes = new PipePair();
        Task<NbdDisconnect> served = _server.Server.ServeAsync(new BadlyEndingStream(pipes.Server), None);
        var client = new WireClient(pipes.Client, served);
        await client.GreetAsync();
        await client.GoAsync("disk");
        Assert.That(() => _server.Server.Connections.Single().Disconnect(force: true), Throws.Nothing);
        await EndsAsync(client, NbdDisconnectReason.Disconnected);
    }

    [Test]
    public async Task A_soft_disconnect_finishes_what_was_received_and_refuses_what_comes_later()
    {
        var gate = new Gate();
        _chain.Plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        WireClient client = await _server.TransmitAsync(structured: true);
        WireCall first = await client.SendRequestAsync(Cmd.Read, 0, 4);
        await gate.ArrivedAsync();
        _server.Server.Connections.Single().Disconnect(force: false);
        WireReply refused = await client.CallAsync(Cmd.Read, 0, 4);
        Assert.That((refused.Error, refused.Message), Is.EqualTo((Errno.Shutdown, "the client was asked to leave")));
        Assert.That((await client.CallAsync(Cmd.Write, 0, 2, payload: [1, 2])).Error, Is.EqualTo(Errno.Shutdown));
        gate.Open();
        WireReply served = await client.ReadReplyAsync();
        Assert.That((served.Cookie, served.Error), Is.EqualTo((first.Cookie, Errno.Ok)));
        await client.SendRequestAsync(Cmd.Disc);
        await EndsAsync(client, NbdDisconnectReason.ClientDone);
    }

    [Test]
    public async Task A_soft_disconnect_in_the_handshake_refuses_what_comes_later()
    {
        WireClient client = await _server.HaggleAsync();
        _server.Server.Connections.Single().Disconnect(force: false);
        OptionReply refused = await client.ExpectOptAsync(Rep.Shutdown, Opt.Go, WireBytes.InfoRequest("disk"u8));
        Assert.That(refused.Text, Is.EqualTo("the client was asked to leave"));
        await client.SendOptionAsync(Opt.ExportName, "disk"u8);
        await EndsAsync(client, NbdDisconnectReason.Disconnected);
    }

    [Test]
    public async Task A_hard_disconnect_sends_nothing_more()
    {
        var gate = new Gate();
        _chain.Plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        WireClient client = await _server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 4);
        await gate.ArrivedAsync();
        NbdConnection connection = _server.Server.Connections.Single();
        connection.Disconnect(force: true);
        Assert.That(connection.Aborted.IsCancellationRequested);
        gate.Open();
        Assert.That(await client.ReadToEndAsync(), Is.Empty);
        await EndsAsync(client, NbdDisconnectReason.Disconnected);
        connection.Disconnect(force: true);
        connection.Disconnect(force: false);
    }

    [Test]
    public async Task A_layer_can_shut_the_server_down_and_its_request_is_still_answered()
    {
        WireClient client = await _server.TransmitAsync();
        NbdConnection connection = _server.Server.Connections.Single();
        _chain.Plugin.Script.OnCall = async (call, _) =>
        {
            if (call.Callback == "flush")
            {
                connection.ShutdownServer();
                await Task.Yield();
            }
        };
        await client.ExpectCallAsync(Errno.Ok, Cmd.Flush);
        await EndsAsync(client, NbdDisconnectReason.ServerStopped);
        await _server.Server.Stopped.Soon();
        Assert.That(_chain.Calls.Count("plugin", "cleanup"), Is.EqualTo(1));
    }

    private async Task EndsAsync(WireClient client, NbdDisconnectReason reason)
    {
        NbdDisconnect end = await _disconnected.Task.Soon();
        Assert.That(end.Reason, Is.EqualTo(reason), end.Detail);
        Assert.That(await client.Ended.Soon(), Is.EqualTo(end));
    }

    private sealed class FaultyStream : MemoryStream
    {
        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
            => throw new FormatException("no transport fails like this");
    }

    private sealed class BadlyEndingStream(IDuplexPipe pipe) : Stream
    {
        private readonly Stream _input = pipe.Input.AsStream();
        private readonly Stream _output = pipe.Output.AsStream();

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
            => _input.ReadAsync(buffer, cancellationToken);

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
            => _output.WriteAsync(buffer, cancellationToken);

        public override Task FlushAsync(CancellationToken cancellationToken) => _output.FlushAsync(cancellationToken);

        public override void Flush() => throw new NotSupportedException();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing) => throw new FormatException("a stream that cannot even end");
    }
}
