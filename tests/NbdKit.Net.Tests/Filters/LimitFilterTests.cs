using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class LimitFilterTests
{
    [Test]
    public async Task One_client_more_is_turned_away_until_another_has_left()
    {
        var filter = new LimitFilter { Limit = 2 };
        await using ChainServer server = await StartAsync(filter);
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.TransmitAsync();
        Assert.That(filter.Clients, Is.EqualTo(2));
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.Refused);

        await first.SendRequestAsync(Cmd.Disc);
        await first.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        Assert.That(filter.Clients, Is.EqualTo(1));
        WireClient third = await server.TransmitAsync();
        await third.ExpectAliveAsync(null);
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.Refused);
        await second.ExpectAliveAsync(null);
        await third.CutAsync();
        await third.ExpectEndAsync();
        Assert.That(filter.Clients, Is.EqualTo(1));
    }

    [Test]
    public async Task Who_was_let_in_before_the_last_place_was_taken_cannot_open()
    {
        var filter = new LimitFilter();
        await using ChainServer server = await StartAsync(filter);
        WireClient slow = await server.HaggleAsync();
        WireClient first = await server.TransmitAsync();
        Assert.That((await slow.TryGoAsync("disk")).IsAck, Is.False);
        Assert.That((await slow.InfoAsync("disk")).IsAck, Is.False);
        await first.CutAsync();
        await first.ExpectEndAsync();
        await slow.GoAsync("disk");
        Assert.That(filter.Clients, Is.EqualTo(1));
    }

    [Test]
    public async Task A_client_keeps_its_place_between_two_opens_and_has_only_one()
    {
        var filter = new LimitFilter();
        await using ChainServer server = await StartAsync(filter);
        WireClient asking = await server.HaggleAsync();
        WireClient waiting = await server.HaggleAsync();
        Assert.That((await asking.InfoAsync("disk")).IsAck);
        Assert.That((await waiting.TryGoAsync("disk")).IsAck, Is.False);
        await asking.GoAsync("disk");
        Assert.That(filter.Clients, Is.EqualTo(1));
    }

    [Test]
    public async Task An_open_that_fails_below_holds_no_place_once_the_client_has_gone()
    {
        var plugin = new RecordingPlugin(new CallRecorder());
        plugin.Script.Fail("open", times: 1);
        var filter = new LimitFilter();
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(plugin, filter));
        WireClient first = await server.HaggleAsync();
        Assert.That((await first.TryGoAsync("")).IsAck, Is.False);
        await first.CutAsync();
        await first.ExpectEndAsync();
        Assert.That(filter.Clients, Is.Zero);
        await server.TransmitAsync("");
    }

    [Test]
    public async Task The_limit_can_be_changed_and_taken_away()
    {
        var filter = new LimitFilter();
        await using ChainServer server = await StartAsync(filter);
        await server.TransmitAsync();
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.Refused);
        filter.Limit = 2;
        await server.TransmitAsync();
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.Refused);
        filter.Limit = 0;
        await server.TransmitAsync();
        await server.TransmitAsync();
        Assert.That(filter.Clients, Is.EqualTo(4));
        Assert.That(() => filter.Limit = -1, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task What_the_host_opens_is_not_counted()
    {
        var filter = new LimitFilter();
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 512 }, filter);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        Assert.That(filter.Clients, Is.Zero);
    }

    private static Task<ChainServer> StartAsync(LimitFilter filter)
        => ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 65_536 }, filter));
}
