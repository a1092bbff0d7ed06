using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_EXPORT_NAME and NBD_OPT_ABORT.</summary>
public sealed class ExportNameTests : WireTest
{
    [TestCase(1u, true)]
    [TestCase(3u, false)]
    [Property("Rule", "S035"), Property("Rule", "S036"), Property("Rule", "S004")]
    public async Task S035_S036_S004_The_reply_is_size_and_flags_then_124_zeroes_unless_agreed_otherwise(
        uint clientFlags, bool zeroes)
    {
        ServerFixture server = await ServeAsync(new TestExport { Size = 0x0102030405060708 });
        WireClient client = await server.HaggleAsync(clientFlags);
        await client.SendOptionAsync(Opt.ExportName);
        await client.SendRequestAsync(Cmd.Flush);

        byte[] reply = await client.ReadAsync(zeroes ? 134 : 10);
        WireReply next = await client.ReadReplyAsync();

        byte[] expected = new WireBytes().U64(0x0102030405060708).U16(0x0d6d).Zeroes(zeroes ? 124 : 0).ToArray();
        Assert.That(reply, Is.EqualTo(expected));
        Assert.That(next.Error, Is.Zero, "the first reply follows at once");
    }

    [TestCase(0u)]
    [TestCase(1u)]
    [TestCase(3u)]
    [Property("Rule", "S037")]
    public async Task S037_An_unknown_export_ends_the_connection_without_a_byte(uint clientFlags)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync(clientFlags);

        await client.SendOptionAsync(Opt.ExportName, "missing"u8);

        await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
    }

    [Test, Property("Rule", "S037")]
    public async Task S037_Many_clients_that_name_unknown_exports_harm_nobody()
    {
        ServerFixture server = await ServeAsync();
        WireClient bystander = await server.TransmitAsync();
        for (int i = 0; i < 200; i++)
        {
            WireClient client = await server.HaggleAsync();
            await client.SendOptionAsync(Opt.ExportName, new byte[1 + i % 4].Select(_ => (byte)'?').ToArray());
            await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
        }
        await bystander.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S038"), Property("Rule", "S096")]
    public async Task S038_S096_The_empty_name_is_the_default_export()
    {
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport("a", 512), new TestExport("b", 1024)) { DefaultExport = "b" });
        WireClient client = await server.HaggleAsync();

        await client.ExportNameAsync();

        Assert.That(client.Size, Is.EqualTo(1024));
    }

    [Test, Property("Rule", "S038")]
    public async Task S038_Without_a_default_export_the_empty_name_ends_the_connection()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a")) { DefaultExport = null });
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Unknown, Opt.Go, WireBytes.InfoRequest([]));

        await client.SendOptionAsync(Opt.ExportName);

        await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
    }

    [Test, Property("Rule", "S039")]
    public async Task S039_An_export_that_refuses_this_client_ends_the_connection()
    {
        ServerFixture server = await ServeAsync(new TestPlugin
        {
            OnOpen = (context, _) => context.IsTls
                ? default
                : throw new NbdException(NbdError.PermissionDenied, "only over TLS"),
        });
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Policy, Opt.Go, WireBytes.InfoRequest([]));

        await client.SendOptionAsync(Opt.ExportName);

        await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
    }

    [Test, Property("Rule", "S040"), Property("Rule", "S165"), Property("Rule", "P20")]
    public async Task S040_S165_P20_A_client_that_could_not_be_told_of_block_sizes_is_let_in_and_held_to_them()
    {
        var export = new TestExport
        {
            Configure = info => info with { BlockSize = new BlockSize(4096, 4096, 1 << 20) },
        };
        byte[] before = [.. export.Data];
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.HaggleAsync();
        await client.ExportNameAsync();

        await client.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, 512, payload: new byte[512]);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 512, 4096);

        Assert.That(await client.ReadDataAsync(0, 4096), Is.EqualTo(before[..4096]));
        Assert.That(export.Data, Is.EqualTo(before));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S041")]
    public async Task S041_Size_and_flags_are_those_of_GO(bool structured)
    {
        var export = new TestExport(size: 12_345) { Configure = info => info with { CanTrim = false, IsRotational = true } };
        ServerFixture server = await ServeAsync(export);
        WireClient byName = await server.HaggleAsync();
        WireClient byGo = await server.HaggleAsync();
        if (structured)
        {
            await byName.StructuredAsync();
            await byGo.StructuredAsync();
        }

        OptionResult info = await byGo.InfoAsync();
        await byGo.GoAsync();
        await byName.ExportNameAsync();

        Assert.That((byName.Size, byName.Flags), Is.EqualTo((byGo.Size, byGo.Flags)));
        Assert.That((info.Size, info.Flags), Is.EqualTo((byGo.Size, byGo.Flags)));
    }

    [TestCase(0)]
    [TestCase(5)]
    [TestCase(4096)]
    [Property("Rule", "S044"), Property("Rule", "S045"), Property("Rule", "S047")]
    public async Task S044_S045_S047_ABORT_is_acknowledged_whatever_its_data_and_ends_the_connection(int length)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.SendAsync((byte[])[.. WireBytes.Option(Opt.Abort, new byte[length]), .. WireBytes.Option(Opt.List, [])]);

        OptionResult aborted = await client.ReadOptionResultAsync(Opt.Abort);
        Assert.That(aborted.Replies.Select(reply => reply.Type), Is.EqualTo(new[] { Rep.Ack }));
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
    }

    [Test, Property("Rule", "S046")]
    public async Task S046_A_client_that_does_not_wait_for_the_answer_to_ABORT_is_no_error()
    {
        ServerFixture server = await ServeAsync();
        for (int i = 0; i < 1000; i++)
        {
            WireClient client = await server.HaggleAsync();
            await client.SendOptionAsync(Opt.Abort);
            await client.CutAsync();
            await client.ExpectEndAsync();
        }
        Assert.That(
            server.Log.Entries.Where(entry => entry.Level >= Microsoft.Extensions.Logging.LogLevel.Warning), Is.Empty);
        Assert.That(server.Server.Connections, Is.Empty);
    }
}
