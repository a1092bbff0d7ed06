using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Connections that wait for memory that others hold.</summary>
public sealed class ServerBudgetTests
{
    private CallRecorder _calls = null!;
    private Gate _gate = null!;
    private NbdBackend _chain = null!;
    private ServerCore _core = null!;
    private ScriptedTransport _waiting = null!;
    private Task<NbdDisconnect> _waitingServed = null!;
    private Task<NbdDisconnect> _holdingServed = null!;
    private Action<LogEntry>? _onLogged;

    [SetUp]
    public async Task One_holds_all_and_one_waits()
    {
        _calls = new CallRecorder();
        _gate = new Gate();
        var plugin = new RecordingPlugin(_calls);
        plugin.Script.OnCall = (call, _) => call is { Callback: "read", Offset: 0 } ? _gate.PassAsync(CancellationToken.None) : default;
        _chain = NbdBackend.Compose(plugin);
        await _chain.StartAsync();
        _onLogged = null;
        var log = new RecordingLog { OnLogged = entry => _onLogged?.Invoke(entry) };
        _core = new ServerCore(_chain, new NbdServerOptions { MaxServerBytesInFlight = 1, LoggerFactory = log }, () => { });
        var holding = new ScriptedTransport();
        holding.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, 4096).Request(Cmd.Disc);
        _holdingServed = _core.ServeAsync(holding, CancellationToken.None);
        _waiting = new ScriptedTransport();
        _waiting.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 8192, 4096).Request(Cmd.Disc);
        _waitingServed = _core.ServeAsync(_waiting, CancellationToken.None);
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1));
    }

    [TearDown]
    public async Task End()
    {
        _gate.Open();
        await _holdingServed.Soon();
        await _waitingServed.Soon();
        _core.Dispose();
        await _chain.DisposeAsync();
        _calls.AssertBalanced();
    }

    [Test]
    public async Task What_is_given_back_goes_to_those_who_wait()
    {
        _gate.Open();
        Assert.That((await _holdingServed.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
        Assert.That((await _waitingServed.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(2));
    }

    [Test]
    public async Task Who_waits_can_be_cut_off()
    {
        _core.Connections.Single(connection => connection.Id == 2).Disconnect(force: true);
        Assert.That((await _waitingServed.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.Disconnected));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1));
    }

    [Test]
    public async Task Who_is_about_to_wait_can_be_cut_off()
    {
        _onLogged = entry =>
        {
            if (entry.Text.StartsWith("Connection 3 waits", StringComparison.Ordinal))
            {
                _core.Connections.Single(connection => connection.Id == 3).Disconnect(force: true);
            }
        };
        var third = new ScriptedTransport();
        third.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 8192, 4096);
        Task<NbdDisconnect> served = _core.ServeAsync(third, CancellationToken.None);
        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.Disconnected));
        Assert.That(_calls.Count("plugin", "read"), Is.EqualTo(1));
    }

    [Test]
    public async Task Who_waits_without_anything_in_flight_leaves_when_the_server_stops()
    {
        Task<bool> stopping = _core.StopAsync(CancellationToken.None);
        Assert.That((await _waitingServed.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ServerStopped));
        _gate.Open();
        Assert.That(await stopping.Soon());
    }

    [TestCase(0L, 512L << 20)]
    [TestCase(1L, 1L)]
    [TestCase(256L << 20, 128L << 20)]
    [TestCase(1L << 30, 512L << 20)]
    [TestCase(24L << 30, 512L << 20)]
    public void The_default_limit_is_half_of_the_memory_and_512_MiB_at_most(long available, long expected)
        => Assert.That(ServerBudget.DefaultLimit(available), Is.EqualTo(expected));

    [Test]
    public void The_options_know_the_memory_of_this_process()
        => Assert.That(
            new NbdServerOptions().MaxServerBytesInFlight,
            Is.EqualTo(ServerBudget.DefaultLimit(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes)));
}
