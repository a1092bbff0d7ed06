using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: grammar, matching, limits.</summary>
public sealed class MetaContextTests : WireTest
{
    private const string Base = "base:allocation";

    private static readonly uint[] Both = [Opt.ListMeta, Opt.SetMeta];

    [Test, Property("Rule", "S113")]
    public async Task S113_LIST_META_is_allowed_before_structured_replies()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.ListMetaAsync("", Base);

        Assert.That(list.IsAck);
        Assert.That(list.Before.Single().ContextName, Is.EqualTo(Base));
    }

    [Test, Property("Rule", "S114")]
    public async Task S114_SET_META_before_structured_replies_is_invalid()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Invalid, Opt.SetMeta, WireBytes.MetaRequest([], Base));
        await client.StructuredAsync();
        await client.GoAsync();

        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S115"), Property("Rule", "S031")]
    public async Task S115_S031_Syntactic_faults_are_invalid(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        for (int length = 0; length < 8; length++)
        {
            await client.ExpectOptAsync(Rep.Invalid, option, new byte[length]);
        }
        byte[][] wrong =
        [
            new WireBytes().U32(1).U32(0).ToArray(),
            new WireBytes().U32(5).Raw("disk"u8).U32(0).ToArray(),
            new WireBytes().U32(0xffffffff).U32(0).ToArray(),
            new WireBytes().U32(0).U32(1).ToArray(),
            new WireBytes().U32(0).U32(1).U32(1).ToArray(),
            new WireBytes().U32(0).U32(1).U32(16).Raw("base:allocation"u8).ToArray(),
            new WireBytes().U32(0).U32(1).U32(0xffffffff).Raw("base:allocation"u8).ToArray(),
            new WireBytes().U32(0).U32(2).Text(Base).ToArray(),
            new WireBytes().U32(0).U32(0).Raw(0).ToArray(),
            new WireBytes().U32(0).U32(0).Text(Base).ToArray(),
            new WireBytes().U32(0).U32(1).Text(Base).Raw(0).ToArray(),
            new WireBytes().U32(0).U32(1).Text(Base).Text(Base).ToArray(),
        ];
        foreach (byte[] data in wrong)
        {
            await client.ExpectOptAsync(Rep.Invalid, option, data);
        }
        await client.GoAsync();
    }

    [TestCase("base")]
    [TestCase(":")]
    [TestCase("")]
    [TestCase("base:allocation:x")]
    [TestCase("BASE:ALLOCATION")]
    [Property("Rule", "S116")]
    public async Task S116_Odd_queries_select_nothing(string query)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint option in Both)
        {
            OptionResult result = await client.OptAsync(option, WireBytes.MetaRequest([], query));
            Assert.That(result.Replies, Has.Count.EqualTo(1));
            Assert.That(result.Type, Is.EqualTo(Rep.Ack).Or.EqualTo(Rep.Invalid));
        }
        await client.GoAsync();
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S117"), Property("Rule", "S118")]
    public async Task S117_S118_Queries_of_unknown_namespaces_are_ignored_and_no_match_is_a_single_ACK(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        await client.ExpectOptAsync(Rep.Ack, option, WireBytes.MetaRequest([], "x-foo:bar", "qemu:dirty-bitmap:a", "x:"));
        OptionResult mixed = await client.OptAsync(option, WireBytes.MetaRequest([], "x-foo:bar", Base, "y:z"));

        Assert.That(mixed.Before.Select(reply => reply.ContextName), Is.EqualTo(new[] { Base }));
        Assert.That(mixed.IsAck);
    }

    [Test, Property("Rule", "S119"), Property("Rule", "S125"), Property("Rule", "S127"), Property("Rule", "S249")]
    public async Task S119_S125_S127_S249_LIST_META_without_queries_tells_every_context_with_id_zero()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.ListMetaAsync();

        Assert.That(list.IsAck);
        // There is no namespace of our own whose queries would have to be documented.
        Assert.That(list.Before.Select(reply => reply.ContextName), Is.EqualTo(new[] { Base }));
        Assert.That(list.Before.Select(reply => reply.Type), Has.All.EqualTo(Rep.MetaContext));
        Assert.That(list.Before.Select(reply => reply.ContextId), Has.All.Zero);
    }

    [Test, Property("Rule", "S120"), Property("Rule", "S127"), Property("Rule", "P07")]
    public async Task S120_S127_P07_LIST_META_with_queries_tells_each_match_once()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.ListMetaAsync("", Base, "base:", Base, "x:y", Base);

        Assert.That(list.Before.Select(reply => reply.ContextName), Is.EqualTo(new[] { Base }));
        Assert.That(list.Before.Single().ContextId, Is.Zero);
    }

    [Test, Property("Rule", "S121")]
    public async Task S121_The_query_base_lists_every_context_of_base()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.ListMetaAsync("", "base:");

        Assert.That(list.Before.Select(reply => reply.ContextName), Is.EqualTo(new[] { Base }));
    }

    [Test, Property("Rule", "S122")]
    public async Task S122_SET_META_of_base_without_a_leaf_selects_nothing()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        await client.ExpectOptAsync(Rep.Ack, Opt.SetMeta, WireBytes.MetaRequest([], "base:"));
        await client.GoAsync();

        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [Test, Property("Rule", "S123")]
    public async Task S123_An_unknown_leaf_of_base_is_ignored()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        OptionResult set = await client.SetMetaAsync("", "base:nosuch", Base);
        await client.GoAsync();

        Assert.That(set.Before.Select(reply => reply.ContextName), Is.EqualTo(new[] { Base }));
        await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S124"), Property("Rule", "P07")]
    public async Task S124_P07_Too_many_queries_are_too_big_and_as_many_as_allowed_are_answered_once(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        string[] queries = [.. Enumerable.Repeat(Base, 1025)];

        await client.ExpectOptAsync(Rep.TooBig, option, WireBytes.MetaRequest([], queries));
        OptionResult most = await client.OptAsync(option, WireBytes.MetaRequest([], queries[1..]));
        await client.ExpectOptAsync(Rep.TooBig, option, WireBytes.MetaRequest([], [.. Enumerable.Repeat("", 30_000)]));

        Assert.That(most.IsAck);
        Assert.That(most.Before, Has.Count.EqualTo(1));
        await client.GoAsync();
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "P07")]
    public async Task P07_A_count_of_queries_that_cannot_be_there_is_invalid_at_once(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint count in new uint[] { 2, 1024, 0x7fffffff, 0x80000000, 0xffffffff })
        {
            OptionResult result = await client.OptAsync(option, new WireBytes().U32(0).U32(count).U32(0).ToArray());
            Assert.That(result.Type, Is.EqualTo(Rep.Invalid).Or.EqualTo(Rep.TooBig));
        }
        await client.GoAsync();
    }

    [Test, Property("Rule", "S133")]
    public async Task S133_Contexts_of_a_missing_export_are_an_error_or_nothing_that_can_be_used()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint option in Both)
        {
            OptionResult result = await client.OptAsync(option, WireBytes.MetaRequest("missing"u8, Base));
            Assert.That(result.Type, Is.EqualTo(Rep.Unknown).Or.EqualTo(Rep.Ack));
        }
        await client.ExpectOptAsync(Rep.Unknown, Opt.Go, WireBytes.InfoRequest("missing"u8));
        Assert.That(server.Plugin.Opened, Is.Zero);
        await client.GoAsync();
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }

    [Test, Property("Rule", "S115"), Property("Rule", "S021")]
    public async Task S115_S021_Without_meta_contexts_on_offer_both_options_are_unsupported()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { OfferMetaContexts = false });
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint option in Both)
        {
            await client.ExpectOptAsync(Rep.Unsup, option, WireBytes.MetaRequest([], Base));
        }
        await client.GoAsync();
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
    }
}
