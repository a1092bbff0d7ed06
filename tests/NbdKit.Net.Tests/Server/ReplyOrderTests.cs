using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>What a client can make the server hold while replies wait for their turn.</summary>
public sealed class ReplyOrderTests
{
    [Test]
    public async Task Replies_that_wait_for_their_turn_count_as_in_flight()
    {
        var calls = new CallRecorder();
        var gate = new Gate();
        var plugin = new RecordingPlugin(calls) { ThreadModel = ThreadModel.SerializeRetirement };
        plugin.Script.OnCall = (call, _) => call is { Callback: "read", Offset: 0 } ? gate.PassAsync(CancellationToken.None) : default;
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions { MaxRequestsInFlight = 4 }, () => { });
        var transport = new ScriptedTransport();
        transport.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, 1);
        for (int i = 0; i < 20; i++)
        {
            // Refused at once, served at once, empty: none of them can be answered before the first read.
            transport.Request(Cmd.Read, ulong.MaxValue, 1).Request(Cmd.Read, 8192, 512).Request(Cmd.Read, 0, 0);
        }
        transport.Request(Cmd.Disc);
        Task<NbdDisconnect> served = core.ServeAsync(transport, CancellationToken.None);
        Assert.That(calls.Count("plugin", "read"), Is.EqualTo(2), "one is stuck, and one of the three behind it is a read");
        transport.TakeOutput();
        gate.Open();
        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
        Assert.That(transport.TakeOutput(), Has.Length.EqualTo((16 * 61) + 1 + (20 * 512)));
    }

    [Test]
    public async Task The_bytes_of_replies_that_wait_for_their_turn_count_as_well()
    {
        var calls = new CallRecorder();
        var gate = new Gate();
        var plugin = new RecordingPlugin(calls) { ThreadModel = ThreadModel.SerializeRetirement };
        plugin.Script.OnCall = (call, _) => call is { Callback: "read", Offset: 0 } ? gate.PassAsync(CancellationToken.None) : default;
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions { MaxBytesInFlight = 10_000 }, () => { });
        var transport = new ScriptedTransport();
        transport.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, 1);
        for (int i = 0; i < 20; i++)
        {
            transport.Request(Cmd.Read, 8192, 4096);
        }
        transport.Request(Cmd.Disc);
        Task<NbdDisconnect> served = core.ServeAsync(transport, CancellationToken.None);
        Assert.That(calls.Count("plugin", "read"), Is.EqualTo(3));
        gate.Open();
        await served.Soon();
    }
}
