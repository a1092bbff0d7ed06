using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class ExitlastFilterTests
{
    private readonly FakeTimeProvider _time = new();

    [Test]
    public async Task The_server_stops_when_the_last_client_has_left()
    {
        await using ChainServer server = await StartAsync(new ExitlastFilter());
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.TransmitAsync();
        await LeaveAsync(first);
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await second.ExpectAliveAsync(null);
        await LeaveAsync(second);
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task Who_opens_nothing_is_no_client_and_who_only_asks_is_one()
    {
        await using ChainServer server = await StartAsync(new ExitlastFilter());
        WireClient scan = await server.HaggleAsync();
        await scan.CutAsync();
        await scan.ExpectEndAsync();
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        WireClient asking = await server.HaggleAsync();
        await asking.InfoAsync("disk");
        Assert.That(server.Server.Stopped.IsCompleted, Is.False, "it is still there");
        await asking.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task Within_the_grace_period_another_client_may_come()
    {
        await using ChainServer server = await StartAsync(
            new ExitlastFilter { Grace = TimeSpan.FromSeconds(10), TimeProvider = _time });
        await LeaveAsync(await server.TransmitAsync());
        _time.Advance(TimeSpan.FromSeconds(9));
        WireClient second = await server.TransmitAsync();
        _time.Advance(TimeSpan.FromSeconds(60));
        await second.ExpectAliveAsync(null);
        await LeaveAsync(second);
        _time.Advance(TimeSpan.FromSeconds(9.9));
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(0.1));
        await server.Server.Stopped.Soon();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task A_stop_while_it_waits_leaves_no_timer()
    {
        ChainServer server = await StartAsync(new ExitlastFilter { Grace = TimeSpan.FromSeconds(10), TimeProvider = _time });
        await LeaveAsync(await server.TransmitAsync());
        Assert.That(_time.PendingTimers, Is.EqualTo(1));
        await server.DisposeAsync();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task A_client_whose_open_fails_below_has_not_come()
    {
        var plugin = new RecordingPlugin(new CallRecorder());
        plugin.Script.Fail("open", times: 1);
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(plugin, new ExitlastFilter()));
        WireClient client = await server.HaggleAsync();
        Assert.That((await client.TryGoAsync("")).IsAck, Is.False);
        await client.CutAsync();
        WireClient second = await server.TransmitAsync();
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await LeaveAsync(second);
        await server.Server.Stopped.Soon();
    }

    [Test]
    public void Wrong_settings_are_refused()
        => Assert.That(() => new ExitlastFilter { Grace = TimeSpan.FromSeconds(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    private static Task<ChainServer> StartAsync(ExitlastFilter filter)
        => ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 65_536 }, filter));

    private static async Task LeaveAsync(WireClient client)
    {
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
    }
}
