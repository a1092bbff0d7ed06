using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Servers that stop by themselves: when the last client has left, and after an event.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class ServerExitTests
{
    private readonly FakeTimeProvider _time = new();
    private volatile bool _happened;

    private NbdExitEvent Event => NbdExitEvent.When("the test says so", _ => new(_happened));

    [Test]
    public async Task It_stops_when_the_last_client_has_left()
    {
        await using ChainServer server = await StartAsync(new NbdServerOptions { StopAfterLast = TimeSpan.Zero });
        WireClient scan = await server.HaggleAsync();
        await scan.CutAsync();
        await scan.ExpectEndAsync();
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.TransmitAsync();
        await first.CutAsync();
        await first.ExpectEndAsync();
        await second.ExpectAliveAsync(null);
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await second.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task It_waits_for_another_client_if_told_to()
    {
        await using ChainServer server = await StartAsync(new NbdServerOptions { StopAfterLast = TimeSpan.FromSeconds(10), TimeProvider = _time });
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
    }

    [Test]
    public async Task After_an_event_nobody_comes_in_and_the_last_one_who_leaves_ends_it()
    {
        await using ChainServer server = await StartAsync(new NbdServerOptions { StopWhen = [Event] });
        WireClient client = await server.TransmitAsync();
        _happened = true;
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await client.ExpectAliveAsync(null);
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await client.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task An_event_before_the_start_stops_it_at_once()
    {
        _happened = true;
        await using ChainServer server = await StartAsync(new NbdServerOptions { StopWhen = [Event] });
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task An_event_while_nobody_is_there_stops_it_at_the_next_look()
    {
        await using ChainServer server = await StartAsync(
            new NbdServerOptions { StopWhen = [Event], StopWhenPoll = TimeSpan.FromSeconds(5), TimeProvider = _time });
        // One is that of the server's own limits.
        await _time.WaitForTimersAsync(2);
        _happened = true;
        _time.Advance(TimeSpan.FromSeconds(4));
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(1));
        await server.Server.Stopped.Soon();
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new NbdServerOptions { StopAfterLast = TimeSpan.FromSeconds(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NbdServerOptions { StopWhenPoll = TimeSpan.Zero }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NbdServerOptions { StopWhen = null! }, Throws.ArgumentNullException);
    }

    private static Task<ChainServer> StartAsync(NbdServerOptions options)
        => ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 65_536 }), options);

    private static async Task LeaveAsync(WireClient client)
    {
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
    }
}
