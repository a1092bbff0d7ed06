using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class ExitwhenFilterTests
{
    private readonly FakeTimeProvider _time = new();
    private volatile bool _happened;
    private volatile int _looks;

    private NbdExitEvent Event => NbdExitEvent.When("the test says so", _ =>
    {
        _looks++;
        return new(_happened);
    });

    [Test]
    public async Task An_event_before_the_start_stops_the_server_at_once()
    {
        _happened = true;
        await using ChainServer server = await StartAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task While_nobody_is_there_it_looks_every_now_and_then()
    {
        await using ChainServer server = await StartAsync();
        await _time.WaitForTimersAsync();
        Assert.That(_time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(60)));
        _time.Advance(TimeSpan.FromSeconds(60));
        await _time.WaitForTimersAsync();
        Assert.That((_looks, server.Server.Stopped.IsCompleted), Is.EqualTo((2, false)));
        _happened = true;
        _time.Advance(TimeSpan.FromSeconds(60));
        await server.Server.Stopped.Soon();
        Assert.That(server.Log.Entries.Select(e => e.Text), Has.One.Contains("as the test says so"));
    }

    [Test]
    public async Task After_the_event_nobody_comes_in_and_the_last_one_who_leaves_ends_it()
    {
        await using ChainServer server = await StartAsync();
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.HaggleAsync();
        _happened = true;
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.Refused);
        await second.GoAsync("disk");
        await first.CutAsync();
        await first.ExpectEndAsync();
        await second.ExpectAliveAsync(null);
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await second.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task When_the_last_client_leaves_it_looks_again()
    {
        await using ChainServer server = await StartAsync();
        WireClient client = await server.TransmitAsync();
        _happened = true;
        await client.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public async Task An_event_that_cannot_be_told_is_reported_and_means_no()
    {
        var broken = NbdExitEvent.When("the moon is blue", _ => throw new FormatException("no moon"));
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(
            new MemoryPlugin { Size = 512 }, new ExitwhenFilter { Events = [broken, Event], TimeProvider = _time }));
        await server.TransmitAsync();
        Assert.That(server.Warnings, Has.Some.Contains("Whether the moon is blue cannot be told"));
        Assert.That(_looks, Is.GreaterThan(0), "the next one is looked at all the same");
    }

    [Test]
    public async Task Without_events_it_does_nothing_and_a_stop_ends_its_watch()
    {
        ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(
            new MemoryPlugin { Size = 512 }, new ExitwhenFilter { TimeProvider = _time }));
        WireClient client = await server.TransmitAsync();
        await client.CutAsync();
        await client.ExpectEndAsync();
        _time.Advance(TimeSpan.FromHours(1));
        Assert.That(server.Server.Stopped.IsCompleted, Is.False);
        await server.DisposeAsync();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task A_chain_that_a_plugin_holds_stops_the_server_of_its_client()
    {
        NbdBackend inner = NbdBackend.Compose(
            new MemoryPlugin { Size = 4096 }, new ExitwhenFilter { Events = [Event], TimeProvider = _time });
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(new ConcatPlugin { Chains = [inner] }));
        WireClient client = await server.TransmitAsync("");
        _happened = true;
        await client.CutAsync();
        await server.Server.Stopped.Soon();
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new ExitwhenFilter { Poll = TimeSpan.Zero }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(
            () => ExitwhenFilter.Entry.Create(new NbdParameters("exitwhen", [new("exit-when-process-exits", "x")])),
            Throws.ArgumentException.With.Message.Contains("exit-when-process-exits=x"));
    }

    private Task<ChainServer> StartAsync() => ChainServer.StartAsync(NbdBackend.Compose(
        new MemoryPlugin { Size = 65_536 }, new ExitwhenFilter { Events = [Event], TimeProvider = _time }));
}
