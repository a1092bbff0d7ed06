using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Extended headers: how they are negotiated, and requests and replies of 64 bits.</summary>
public sealed class ExtendedHeaderTests : WireTest
{
    private const string Base = "base:allocation";

    [Test, Property("Rule", "X01")]
    public async Task X01_EXTENDED_HEADERS_with_data_is_invalid_and_negotiates_nothing()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        foreach (int length in new[] { 1, 8, 4096 })
        {
            await client.ExpectOptAsync(Rep.Invalid, Opt.ExtendedHeaders, new byte[length]);
        }
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "X02"), Property("Rule", "X03"), Property("Rule", "X08"), Property("Rule", "S246")]
    public async Task X02_X03_X08_S246_Extended_headers_go_before_structured_replies_and_need_none(bool structuredBefore)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        if (structuredBefore)
        {
            await client.StructuredAsync();
        }
        await client.ExtendedAsync();
        await client.GoAsync();

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 100, 1000);

        Assert.That(reply.Data, Is.EqualTo(server.Plugin.Data[100..1100]));
        Assert.That(client.Flags & TxFlag.SendDf, Is.Not.Zero);
    }

    [Test, Property("Rule", "X04")]
    public async Task X04_STRUCTURED_REPLY_after_extended_headers_is_refused_and_changes_nothing()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.ExtendedAsync();

        await client.ExpectOptAsync(Rep.ExtendedHeadersRequired, Opt.StructuredReply);
        await client.ExtendedAsync();
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "X05")]
    public async Task X05_EXPORT_NAME_after_extended_headers_ends_the_connection()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.ExtendedAsync();

        await client.SendOptionAsync(Opt.ExportName);

        await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [Test, Property("Rule", "X07"), Property("Rule", "P32")]
    [Property("Threat", "P32")]
    public async Task X07_P32_Only_requests_of_the_negotiated_form_are_accepted()
    {
        ServerFixture server = await ServeAsync();
        WireClient extended = await server.TransmitAsync(extended: true);
        WireClient compact = await server.TransmitAsync(structured: true);

        await extended.SendAsync(WireBytes.Request(Cmd.Write, 1, 0, 4).Concat(new byte[4]).ToArray());
        await compact.SendAsync(WireBytes.ExtendedRequest(Cmd.Read, 1, 0, 4));

        await extended.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        await compact.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        Assert.That(server.Plugin.Calls, Is.Empty);
    }

    [Test, Property("Rule", "X08"), Property("Rule", "X09")]
    public async Task X08_X09_Every_reply_is_an_extended_chunk_with_the_cookie_and_offset_of_its_request()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(extended: true);
        await client.WriteDataAsync(512, new byte[512]);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Trim, 1024, 512);
        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 2048, 512);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Cache, 4096, 512);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 7, 1);
        foreach (ushort command in new[] { Cmd.Read, Cmd.Trim, Cmd.Cache, Cmd.BlockStatus, (ushort)77 })
        {
            WireReply reply = await client.ExpectCallAsync(WireError.Inval, command, client.Size - 1, 2);
            Assert.That(reply.Message, Is.Not.Empty);
        }

        await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, client.Size, 1);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "X10")]
    public async Task X10_A_write_without_PAYLOAD_LEN_has_no_payload_and_is_invalid_if_that_is_wished()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { RequirePayloadFlag = true });
        WireClient client = await server.TransmitAsync(extended: true);

        await client.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, 512);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, 1ul << 40);

        await client.ExpectAliveAsync(server.Plugin.Data);
        Assert.That(server.Plugin.Count(PluginOp.Write), Is.Zero);
    }

    [Test, Property("Rule", "X10")]
    public async Task X10_Otherwise_a_write_without_PAYLOAD_LEN_has_its_payload_all_the_same_as_QEMU_sends_it()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(extended: true);
        byte[] data = TestExport.Pattern(1000);

        await client.ExpectCallAsync(WireError.Ok, Cmd.Write, 512, 1000, CmdFlag.Fua, data);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Write, client.Size, 1000, CmdFlag.None, data);

        Assert.That(await client.ReadDataAsync(512, 1000), Is.EqualTo(data));
        WireClient hostile = await server.TransmitAsync(extended: true);
        await hostile.SendAsync(WireBytes.ExtendedRequest(Cmd.Write, 1, 0, 1ul << 40));
        await hostile.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
    }

    [TestCase(Cmd.Read)]
    [TestCase(Cmd.Trim)]
    [TestCase(Cmd.Flush)]
    [TestCase(Cmd.Cache)]
    [TestCase(Cmd.WriteZeroes)]
    [TestCase(Cmd.BlockStatus)]
    [TestCase((ushort)77)]
    [Property("Rule", "X11"), Property("Rule", "X19"), Property("Rule", "P30")]
    [Property("Threat", "P30")]
    public async Task X11_X19_P30_A_payload_where_none_belongs_is_consumed_and_invalid(ushort command)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(extended: true);
        foreach (int length in new[] { 0, 1, 1 << 20 })
        {
            await client.ExpectCallAsync(
                WireError.Inval, command, 0, (ulong)length, CmdFlag.PayloadLength, Enumerable.Repeat((byte)0x25, length).ToArray());
        }

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "X12"), Property("Rule", "P30")]
    [Property("Threat", "P30")]
    public async Task X12_P30_A_payload_that_is_too_large_ends_the_connection()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxPayload = 1 << 20 });
        WireClient good = await server.TransmitAsync(extended: true);
        await good.ExpectCallAsync(
            WireError.NoSpc, Cmd.Write, 0, 1 << 20, CmdFlag.PayloadLength, new byte[1 << 20]);
        await good.ExpectAliveAsync(server.Plugin.Data);
        foreach (ulong length in new[] { (1ul << 20) + 1, 1ul << 32, 1ul << 63, ulong.MaxValue })
        {
            foreach (ushort command in new[] { Cmd.Write, Cmd.Read })
            {
                WireClient client = await server.TransmitAsync(extended: true);
                await client.SendAsync(WireBytes.ExtendedRequest(command, 1, 0, length, CmdFlag.PayloadLength));
                await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
            }
        }
    }

    [Test, Property("Rule", "X13"), Property("Rule", "X22"), Property("Rule", "P29")]
    [Property("Threat", "P29")]
    public async Task X13_X22_P29_Lengths_of_64_bits_work_on_what_has_no_payload_or_fail_cleanly()
    {
        const long Size = 1L << 50;
        ServerFixture server = await ServeAsync(new TestExport { Size = Size });
        WireClient client = await server.HaggleAsync();
        await client.ExtendedAsync();
        await client.SetMetaAsync("", Base);
        await client.GoAsync();
        foreach (ulong length in new[] { 1ul << 32, 1ul << 40, (ulong)Size })
        {
            foreach (ushort command in new[] { Cmd.Trim, Cmd.Cache, Cmd.WriteZeroes, Cmd.BlockStatus })
            {
                await client.ExpectCallAsync(WireError.Ok, command, 0, length);
            }
            Assert.That(server.Plugin.Calls.Select(call => call.Length), Is.All.EqualTo(length), "one request, one call");
            server.Plugin.Calls.Clear();
        }
        foreach (ulong length in new[] { (ulong)Size + 1, 1ul << 63, ulong.MaxValue })
        {
            foreach (ushort command in new[] { Cmd.Trim, Cmd.Cache, Cmd.BlockStatus })
            {
                await client.ExpectCallAsync(WireError.Inval, command, 0, length);
                await client.ExpectCallAsync(WireError.Inval, command, 1ul << 63, length);
            }
            await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 512, length);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
    }

    [Test, Property("Rule", "X23")]
    public async Task X23_A_read_that_is_too_long_is_refused_and_its_length_never_wraps()
    {
        ServerFixture server = await ServeAsync(new TestExport { Size = 1L << 40 });
        WireClient client = await server.TransmitAsync(extended: true);
        foreach (ulong length in new[] { (32ul << 20) + 1, (1ul << 32) + 512, 1ul << 40 })
        {
            await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, length);
        }

        await client.ExpectAliveAsync(null);
        Assert.That(server.Plugin.Calls, Has.Count.EqualTo(1));
    }

    [Test, Property("Rule", "X24")]
    public async Task X24_Without_extended_headers_on_offer_they_are_unsupported_and_GO_works()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { OfferExtendedHeaders = false });
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Unsup, Opt.ExtendedHeaders);
        await client.StructuredAsync();
        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
