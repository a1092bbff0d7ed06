using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

public sealed class ReplyBudgetTests
{
    private const int Length = 1 << 20;

    [Test]
    public async Task A_large_read_counts_once_while_its_reply_is_sent([Values] bool ordered)
    {
        var disk = new VastDisk(Length) { Info = new NbdExportInfo { Size = Length } };
        await using NbdBackend chain = ordered
            ? NbdBackend.Compose(disk, new NoparallelFilter { Serialize = ThreadModel.SerializeRetirement })
            : NbdBackend.Compose(disk);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { });
        long most = 0;
        var client = new ScriptedTransport
        {
            OnSend = _ =>
            {
                most = Math.Max(most, core.Budget.Held);
                return default;
            },
        };
        client.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, Length).Request(Cmd.Disc);

        NbdDisconnect end = await core.ServeAsync(client, CancellationToken.None).Soon();

        Assert.That(end.Reason, Is.EqualTo(NbdDisconnectReason.ClientDone), end.Detail);
        Assert.That(most, Is.InRange(Length, Length + 128));
        Assert.That(core.Budget.Held, Is.Zero);
    }

    [Test]
    public async Task A_write_that_goes_straight_to_the_disk_holds_nothing_while_it_comes()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = Length });
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { });
        var client = new ScriptedTransport();
        byte[] whole = [.. WireBytes.Request(Cmd.Write, 1, 0, Length), .. new byte[Length]];
        client.Feed(ScriptedTransport.Handshake());
        Task<NbdDisconnect> served = core.ServeAsync(client, CancellationToken.None);
        // The first one may have to make the pages that the second is received into.
        client.Feed(whole);
        client.Feed(whole[..(Length / 2)]);
        Assert.That(core.Budget.Held, Is.Zero);
        client.Feed(whole[(Length / 2)..]).Request(Cmd.Disc);
        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }
}
