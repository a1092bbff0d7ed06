using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Block status with extended headers: 64-bit extents, the choice of contexts by payload, contexts with a wide status.</summary>
public sealed class ExtendedStatusTests : WireTest
{
    private const string Base = "base:allocation";
    private const string Depth = "qemu:allocation-depth";
    private const string Wide = "x-test:wide";

    [Test, Property("Rule", "X14"), Property("Rule", "X15"), Property("Rule", "X16")]
    public async Task X14_X15_X16_Block_status_is_answered_with_64_bits_and_only_with_extended_headers()
    {
        const long Size = 1L << 50;
        ServerFixture server = await ServeAsync(new TestExport
        {
            Size = Size,
            Extents = (_, extents) =>
            {
                extents.Add(0, 1L << 40, (ExtentStatus)0xffff_ffff_ffff_fff0 | ExtentStatus.Hole);
                extents.Add(1L << 40, Size - (1L << 40), ExtentStatus.Data);
            },
        });
        WireClient client = await TransmitAsync(server, [Base]);
        WireClient compact = await server.TransmitAsync(meta: true);

        WireReply whole = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, Size);
        WireReply one = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 1ul << 33, CmdFlag.ReqOne);
        WireReply old = await compact.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 1 << 20);

        Assert.That(whole.Chunks.Single().Type, Is.EqualTo(ChunkType.BlockStatusExtended));
        Assert.That(whole.Extents, Is.EqualTo(new[] { new WireExtent(1ul << 40, 1), new WireExtent(Size - (1ul << 40), 0) }));
        Assert.That(one.Extents, Is.EqualTo(new[] { new WireExtent(1ul << 33, 1) }));
        Assert.That(old.Chunks.Single().Type, Is.EqualTo(ChunkType.BlockStatus));
        Assert.That(old.Extents[0].Length, Is.LessThanOrEqualTo(uint.MaxValue));
    }

    [Test, Property("Rule", "X17"), Property("Rule", "S147")]
    public async Task X17_S147_The_choice_of_contexts_is_offered_only_where_there_are_some()
    {
        ServerFixture server = await ServeAsync();
        WireClient with = await TransmitAsync(server, [Base]);
        WireClient without = await server.TransmitAsync(extended: true);
        WireClient compact = await server.TransmitAsync(meta: true);

        Assert.That(with.Flags & TxFlag.BlockStatusPayload, Is.Not.Zero);
        Assert.That(without.Flags & TxFlag.BlockStatusPayload, Is.Zero);
        Assert.That(compact.Flags & TxFlag.BlockStatusPayload, Is.Zero);
    }

    [Test, Property("Rule", "X18"), Property("Rule", "P31")]
    [Property("Threat", "P31")]
    public async Task X18_P31_A_payload_chooses_contexts_and_a_bad_one_is_consumed_and_invalid()
    {
        ServerFixture server = await ServeAsync(ManyContexts());
        WireClient client = await TransmitAsync(server, [Base, Depth]);
        uint known = client.ContextIds[0];
        uint other = client.ContextIds[1];
        foreach (uint[] ids in new uint[][] { [known], [other], [other, known] })
        {
            WireReply reply = await AskAsync(client, 512, ids);
            Assert.That(reply.Error, Is.Zero);
            Assert.That(reply.Contexts.Keys, Is.EqualTo(ids));
        }
        foreach (uint[] ids in new uint[][] { [], [known, known], [0], [3], [uint.MaxValue, known], [known, other, known] })
        {
            Assert.That((await AskAsync(client, 512, ids)).Error, Is.EqualTo(WireError.Inval));
        }
        foreach (int length in new[] { 0, 1, 7, 8, 9, 11, 13, 15, 4_000_008 })
        {
            await client.ExpectCallAsync(
                WireError.Inval, Cmd.BlockStatus, 0, (ulong)length, CmdFlag.PayloadLength, new byte[length]);
        }
        foreach (ulong length in new ulong[] { 0, client.Size + 1, 1ul << 63, ulong.MaxValue })
        {
            Assert.That((await AskAsync(client, length, [known])).Error, Is.EqualTo(WireError.Inval));
        }

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "X20"), Property("Rule", "X21")]
    public async Task X20_X21_A_context_with_a_wide_status_is_seen_only_with_extended_headers()
    {
        ServerFixture server = await ServeAsync(ManyContexts());
        WireClient compact = await server.HaggleAsync();
        await compact.StructuredAsync();
        OptionResult listed = await compact.ListMetaAsync();
        OptionResult set = await compact.SetMetaAsync("", Wide, Base);
        WireClient extended = await TransmitAsync(server, [Wide, Base]);

        WireReply reply = await extended.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);

        Assert.That(listed.Before.Select(r => r.ContextName), Is.EqualTo(new[] { Base, Depth }));
        Assert.That(set.IsAck);
        Assert.That(set.Before.Select(r => r.ContextName), Is.EqualTo(new[] { Base }));
        Assert.That(reply.Contexts[extended.ContextIds[0]][0].Status, Is.EqualTo(0xfedc_ba98_7654_3210));
        Assert.That(reply.Contexts[extended.ContextIds[1]][0].Status, Is.EqualTo(0));
    }

    [Test, Property("Rule", "S120"), Property("Rule", "S121"), Property("Rule", "S122"), Property("Rule", "S130")]
    public async Task S120_S121_S122_S130_Contexts_are_listed_by_prefix_and_selected_by_name()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { MetaContexts = [Base, Depth, "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b", "x-my:thing"] },
        });
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        Assert.That(await ListAsync(), Is.EqualTo(new[] { Base, Depth, "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b", "x-my:thing" }));
        Assert.That(await ListAsync("qemu:"), Is.EqualTo(new[] { Depth, "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b" }));
        Assert.That(
            await ListAsync("qemu:dirty-bitmap:", "base:", "qemu:dirty-bitmap:b"),
            Is.EqualTo(new[] { "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b", Base }));
        Assert.That(await ListAsync("qemu:dirty-bitmap:c", "qemu", "x-my:"), Is.EqualTo(new[] { "x-my:thing" }));
        OptionResult set = await client.SetMetaAsync("", "qemu:", "qemu:dirty-bitmap:b", "x-my:thing", "qemu:dirty-bitmap:");
        await client.GoAsync();

        Assert.That(set.Before.Select(r => r.ContextName), Is.EqualTo(new[] { "qemu:dirty-bitmap:b", "x-my:thing" }));
        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
        Assert.That(reply.Contexts.Keys, Is.EqualTo(client.ContextIds));

        async Task<IEnumerable<string>> ListAsync(params string[] queries)
            => (await client.ListMetaAsync("", queries)).Before.Select(r => r.ContextName);
    }

    private static TestExport ManyContexts() => new()
    {
        Configure = info => info with { MetaContexts = [Base, Depth, Wide], WideMetaContexts = [Wide] },
        Extents = (call, extents) => extents.Add(
            call.Offset, call.Length, extents.MetaContext == Wide ? (ExtentStatus)0xfedc_ba98_7654_3210 : ExtentStatus.Data),
    };

    private static async Task<WireClient> TransmitAsync(ServerFixture server, string[] contexts)
    {
        WireClient client = await server.HaggleAsync();
        await client.ExtendedAsync();
        Assert.That((await client.SetMetaAsync("", contexts)).Before, Has.Count.EqualTo(contexts.Length));
        await client.GoAsync();
        return client;
    }

    private static async Task<WireReply> AskAsync(WireClient client, ulong length, uint[] ids)
    {
        var payload = new WireBytes().U64(length);
        foreach (uint id in ids)
        {
            payload.U32(id);
        }
        byte[] bytes = payload.ToArray();
        WireCall call = client.Expect(Cmd.BlockStatus, 0, length, CmdFlag.PayloadLength, contexts: ids);
        byte[] header = WireBytes.ExtendedRequest(Cmd.BlockStatus, call.Cookie, 0, (ulong)bytes.Length, CmdFlag.PayloadLength);
        await client.SendAsync((byte[])[.. header, .. bytes]);
        return await client.ReadReplyAsync();
    }
}
