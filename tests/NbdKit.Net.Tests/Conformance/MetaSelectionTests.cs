using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_STRUCTURED_REPLY, and what a selection of meta contexts is worth later.</summary>
public sealed class MetaSelectionTests : WireTest
{
    private const string Base = "base:allocation";

    [Test, Property("Rule", "S110")]
    public async Task S110_STRUCTURED_REPLY_with_data_is_invalid_and_negotiates_nothing()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        foreach (int length in new[] { 1, 8, 4096 })
        {
            await client.ExpectOptAsync(Rep.Invalid, Opt.StructuredReply, new byte[length]);
        }
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
        Assert.That(client.Flags & TxFlag.SendDf, Is.Zero);
    }

    [Test, Property("Rule", "S111"), Property("Rule", "S182")]
    public async Task S111_S182_After_its_ACK_reads_are_answered_in_chunks()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(structured: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 100, 1000);

        Assert.That(reply.IsStructured);
        Assert.That(reply.Data, Is.EqualTo(server.Plugin.Data[100..1100]));
    }

    [Test, Property("Rule", "S111")]
    public async Task S111_Without_structured_replies_on_offer_the_option_is_unsupported()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { OfferStructuredReplies = false });
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Unsup, Opt.StructuredReply);
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S112"), Property("Rule", "S143")]
    public async Task S112_S143_DF_is_advertised_only_after_structured_replies()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        ushort before = (await client.InfoAsync()).Flags;
        await client.StructuredAsync();
        ushort after = (await client.InfoAsync()).Flags;
        await client.GoAsync();

        Assert.That(before & TxFlag.SendDf, Is.Zero);
        Assert.That(after, Is.EqualTo(before | TxFlag.SendDf));
        Assert.That(client.Flags, Is.EqualTo(after));
    }

    [Test, Property("Rule", "S128"), Property("Rule", "P23")]
    public async Task S128_P23_A_SET_META_that_fails_drops_the_selection_before_it()
    {
        byte[][] bad =
        [
            new WireBytes().U32(0).U32(1).ToArray(),
            WireBytes.MetaRequest([], [Base, "x:y", Base])[..^1],
            new byte[3],
            new byte[(128 << 10) + 1],
            WireBytes.MetaRequest([0xff], Base),
        ];
        ServerFixture server = await ServeAsync();
        foreach (byte[] data in bad)
        {
            WireClient client = await server.HaggleAsync();
            await client.StructuredAsync();
            Assert.That((await client.SetMetaAsync("", Base)).Before, Has.Count.EqualTo(1));

            OptionResult failed = await client.OptAsync(Opt.SetMeta, data);
            Assert.That(failed.Replies, Has.Count.EqualTo(1), "a failing SET_META tells no contexts");
            Assert.That(failed.Final.IsError);
            await client.GoAsync();

            client.ContextIds = [];
            await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        }
    }

    [Test, Property("Rule", "S128"), Property("Rule", "S129"), Property("Rule", "P23")]
    public async Task S128_S129_P23_SET_META_without_queries_selects_none_and_replaces_what_was_selected()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        await client.SetMetaAsync("", Base);

        await client.ExpectOptAsync(Rep.Ack, Opt.SetMeta, WireBytes.MetaRequest([]));
        await client.GoAsync();

        client.ContextIds = [];
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [Test, Property("Rule", "S130"), Property("Rule", "S226")]
    public async Task S130_S226_A_duplicate_query_selects_a_context_once()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        OptionResult set = await client.SetMetaAsync("", Base, Base, Base);
        await client.GoAsync();

        Assert.That(set.IsAck);
        Assert.That(set.Before, Has.Count.EqualTo(1));
        Assert.That(set.Before[0].Type, Is.EqualTo(Rep.MetaContext));
        Assert.That(set.Before[0].ContextName, Is.EqualTo(Base));
        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
        Assert.That(reply.Contexts.Keys, Is.EqualTo(new[] { set.Before[0].ContextId }));
    }

    [Test, Property("Rule", "S131"), Property("Rule", "P23")]
    public async Task S131_P23_A_selection_counts_only_for_the_export_that_it_named()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a"), new TestExport("b")));
        WireClient byGo = await server.HaggleAsync();
        WireClient byName = await server.HaggleAsync();
        foreach (WireClient client in new[] { byGo, byName })
        {
            await client.StructuredAsync();
            Assert.That((await client.SetMetaAsync("a", Base)).Before, Has.Count.EqualTo(1));
            client.ContextIds = [];
        }

        await byGo.GoAsync("b");
        await byName.ExportNameAsync("b");

        await byGo.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        await byName.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [TestCase("")]
    [TestCase("a")]
    [Property("Rule", "S131")]
    public async Task S131_A_selection_outlives_INFO_and_failed_GO_for_other_exports(string name)
    {
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport("a"), new TestExport("b")) { DefaultExport = "a" });
        WireClient byGo = await server.HaggleAsync();
        WireClient byName = await server.HaggleAsync();
        foreach (WireClient client in new[] { byGo, byName })
        {
            await client.StructuredAsync();
            await client.SetMetaAsync(name, Base);
            await client.InfoAsync("b");
            await client.TryGoAsync("missing");
            await client.ListMetaAsync("b");
        }

        await byGo.GoAsync(name);
        await byName.ExportNameAsync(name);

        await byGo.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
        await byName.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
    }

    [Test, Property("Rule", "S132")]
    public async Task S132_A_refused_STARTTLS_changes_nothing_that_was_negotiated()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        await client.SetMetaAsync("", Base);

        Assert.That((await client.OptAsync(Opt.StartTls)).Final.IsError);
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
        await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
    }
}
