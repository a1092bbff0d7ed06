using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>What a client may make a server do before it has entered transmission (F13).</summary>
public sealed class HandshakeWorkTests : WireTest
{
    [Test, Property("Threat", "P04")]
    public async Task Payload_counts_as_options()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        byte[] payload = new byte[64 << 10];
        // 64 options, of which each of these takes three.
        for (int i = 0; i < 21; i++)
        {
            await client.ExpectOptAsync(Rep.Unsup, 0x77, payload);
        }
        await client.SendOptionAsync(0x77, payload);
        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
    }

    [Test, Property("Threat", "P07")]
    public async Task The_queries_of_a_handshake_are_four_times_those_of_an_option()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxMetaQueries = 10 });
        WireClient client = await server.HaggleAsync();
        string[] queries = [.. Enumerable.Repeat("base:", 10)];
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.ListMetaAsync("", queries)).IsAck);
        }
        await client.ExpectOptAsync(Rep.TooBig, Opt.ListMeta, WireBytes.MetaRequest([], "base:"));
        Assert.That((await client.ListMetaAsync()).IsAck, "no query asks for all there is");
        await client.GoAsync();
    }

    [Test, Property("Threat", "P07")]
    public async Task Each_listed_export_adds_room_for_queries_about_it()
    {
        TestExport[] exports = [.. Enumerable.Range(0, 40).Select(i => new TestExport($"disk{i}", 512))];
        ServerFixture server = await ServeAsync(new TestPlugin(exports), new NbdServerOptions { MaxMetaQueries = 2 });
        WireClient client = await server.HaggleAsync();
        OptionResult list = await client.OptAsync(Opt.List);
        foreach (OptionReply listed in list.Before)
        {
            Assert.That((await client.ListMetaAsync(listed.ServerName, "base:", "qemu:")).IsAck, listed.ServerName);
        }
        await client.GoAsync("disk7");
    }

    [Test]
    public async Task An_answer_waits_for_no_option_that_has_not_come_whole()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        byte[] next = WireBytes.Option(Opt.Info, WireBytes.InfoRequest([]));
        for (int there = 0; there < next.Length; there++)
        {
            await client.SendAsync(WireBytes.Option(0x77, []).Concat(next.Take(there)).ToArray());
            Assert.That((await client.ReadOptionResultAsync(0x77)).Type, Is.EqualTo(Rep.Unsup), $"with {there} bytes of the next");
            await client.SendAsync(next.AsMemory(there));
            await client.ReadOptionResultAsync(Opt.Info);
            await client.DisposeAsync();
            client = await server.HaggleAsync();
        }
    }

    [Test]
    public async Task An_answer_waits_for_no_layer()
    {
        var opening = new TaskCompletionSource();
        ServerFixture server = await ServeAsync(new TestPlugin { OnOpen = (_, _) => new ValueTask(opening.Task) });
        WireClient client = await server.HaggleAsync();
        await client.SendAsync(WireBytes.Option(0x77, []).Concat(WireBytes.Option(Opt.Info, WireBytes.InfoRequest([]))).ToArray());
        Assert.That((await client.ReadOptionResultAsync(0x77)).Type, Is.EqualTo(Rep.Unsup));
        opening.SetResult();
        await client.ReadOptionResultAsync(Opt.Info);
    }

    [Test, Property("Threat", "P04")]
    public async Task What_was_answered_before_a_client_went_too_far_is_sent()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 3 });
        WireClient client = await server.HaggleAsync();
        await client.SendAsync(Enumerable.Repeat(WireBytes.Option(0x77, []), 4).SelectMany(option => option).ToArray());
        for (int i = 0; i < 3; i++)
        {
            Assert.That((await client.ReadOptionResultAsync(0x77)).Type, Is.EqualTo(Rep.Unsup));
        }
        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
    }

    [Test, Property("Threat", "P04")]
    public async Task What_was_answered_before_an_export_was_refused_is_sent()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) });
        WireClient client = await server.HaggleAsync();
        await client.SendAsync(WireBytes.Option(Opt.StructuredReply, []).Concat(WireBytes.Option(Opt.ExportName, [])).ToArray());
        Assert.That((await client.ReadOptionResultAsync(Opt.StructuredReply)).Type, Is.EqualTo(Rep.TlsRequired));
        await client.ExpectGoneAsync(NbdDisconnectReason.TlsRequired);
    }

    [Test, Property("Threat", "P05")]
    public async Task What_is_not_limited_is_not_limited_after_a_list_either()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            MaxOptions = int.MaxValue,
            MaxOpensInHandshake = int.MaxValue,
            MaxMetaQueries = int.MaxValue,
        });
        WireClient client = await server.HaggleAsync();
        Assert.That((await client.OptAsync(Opt.List)).IsAck);
        Assert.That((await client.ListMetaAsync("", "base:")).IsAck);
        Assert.That((await client.InfoAsync()).IsAck);
        await client.GoAsync();
    }

    [Test, Property("Threat", "nbdkit-option-memory")]
    public async Task A_client_for_whom_an_export_is_opened_holds_no_block_to_receive_into()
    {
        var gate = new Gate();
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin { OnOpen = (_, stop) => gate.PassAsync(stop) });
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { });
        var client = new ScriptedTransport();
        client.Feed(ScriptedTransport.Handshake(name: ""));
        Task<NbdDisconnect> served = core.ServeAsync(client, CancellationToken.None);
        await gate.ArrivedAsync();
        Assert.That(core.Slabs.InUse, Is.Zero);
        gate.Open();
        client.Request(Cmd.Disc);
        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }
}
