using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Request headers, cookies, the form of replies and their order ("Transmission", "Ordering").</summary>
public sealed class RequestTests : WireTest
{
    [Test, Property("Rule", "S150"), Property("Rule", "P11")]
    [Property("Threat", "P11")]
    public async Task S150_P11_A_request_with_a_wrong_magic_ends_the_connection_without_a_reply_or_an_effect()
    {
        ServerFixture server = await ServeAsync();
        byte[] before = [.. server.Plugin.Data];
        uint[] magics =
        [
            .. Magic.Historic, Magic.ExtendedRequest, Magic.SimpleReply, Magic.Chunk, 0, uint.MaxValue,
            .. Enumerable.Range(0, 32).Select(bit => Magic.Request ^ 1u << bit),
        ];
        foreach (uint magic in magics)
        {
            WireClient client = await server.TransmitAsync();
            byte[] write = WireBytes.Request(Cmd.Write, 1, 0, 512, magic: magic);
            await client.SendAsync((byte[])[.. write, .. new byte[512]]);
            await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        Assert.That(server.Plugin.Data, Is.EqualTo(before));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S151")]
    public async Task S151_The_cookie_comes_back_unchanged(bool structured)
    {
        const int Seed = 151;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(structured: structured);
        ulong[] cookies =
        [
            0, 1, 1ul << 63, ulong.MaxValue, 0x6744669867446698, 0x2560951325609513,
            .. Enumerable.Range(0, 1000).Select(_ => (ulong)random.NextInt64(long.MinValue, long.MaxValue)),
        ];
        foreach (ulong cookie in cookies)
        {
            WireReply read = await client.CallAsync(Cmd.Read, 0, 16, cookie: cookie);
            Assert.That(read.Error, Is.Zero);
            WireReply failed = await client.CallAsync(Cmd.Read, ulong.MaxValue, 16, cookie: cookie);
            Assert.That(failed.Error, Is.EqualTo(WireError.Inval));
        }
    }

    [Test, Property("Rule", "S151"), Property("Rule", "P24")]
    [Property("Threat", "P24")]
    public async Task S151_P24_Requests_in_flight_may_share_a_cookie()
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(new TestExport { Before = _ => gate.PassAsync() });
        WireClient client = await server.TransmitAsync();
        for (int i = 0; i < 8; i++)
        {
            await client.SendRequestAsync(Cmd.Read, 0, 512, cookie: 7);
        }
        await gate.ArrivedAsync(8);

        gate.Open();

        for (int i = 0; i < 8; i++)
        {
            WireReply reply = await client.ReadReplyAsync();
            Assert.That(reply.Cookie, Is.EqualTo(7));
            Assert.That(reply.Data, Is.EqualTo(server.Plugin.Data[..512]));
        }
    }

    [Test, Property("Rule", "S152"), Property("Rule", "S246")]
    public async Task S152_S246_Without_negotiation_every_reply_is_a_simple_one()
    {
        var export = new TestExport();
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync();
        foreach (bool fails in new[] { false, true })
        {
            export.Before = fails ? _ => throw new NbdException(NbdError.IoError, "broken") : null;
            for (ushort command = 0; command < 12; command++)
            {
                if (command == Cmd.Disc)
                {
                    continue;
                }
                uint length = command == Cmd.Flush ? 0u : 512u;
                byte[]? payload = command == Cmd.Write ? new byte[512] : null;
                // The client fails the test at the first chunk.
                WireReply good = await client.CallAsync(command, 0, length, payload: payload);
                WireReply bad = await client.CallAsync(command, 1ul << 40, length, 0x4000, payload);
                Assert.That(good.IsStructured || bad.IsStructured, Is.False);
                Assert.That(bad.Error, Is.Not.Zero);
            }
        }
    }

    [Test, Property("Rule", "S153"), Property("Rule", "S182"), Property("Rule", "S207"), Property("Threat", "nbd-server-simple-read-error")]
    public async Task S153_S182_S207_With_structured_replies_what_carries_data_is_a_chunk_and_plain_success_is_simple()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: true);

        Assert.That((await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, 512)).IsStructured);
        Assert.That((await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512)).IsStructured);
        Assert.That((await client.ExpectCallAsync(WireError.Ok, Cmd.Write, 0, 4, payload: new byte[4])).IsStructured, Is.False);
        foreach (ushort command in new[] { Cmd.Trim, Cmd.Cache, Cmd.WriteZeroes })
        {
            Assert.That((await client.ExpectCallAsync(WireError.Ok, command, 0, 512)).IsStructured, Is.False);
        }
        Assert.That((await client.ExpectCallAsync(WireError.Ok, Cmd.Flush)).IsStructured, Is.False);
    }

    [Test, Property("Rule", "S154"), Property("Rule", "S191")]
    public async Task S154_S191_With_structured_replies_an_error_is_a_chunk_with_a_message()
    {
        var export = new TestExport();
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: true);
        foreach (ushort command in Cmd.Ranged)
        {
            byte[]? payload = command == Cmd.Write ? new byte[512] : null;
            WireReply outside = await client.CallAsync(command, client.Size, 512, payload: payload);
            Assert.That(outside.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.Error }));
            Assert.That(outside.Message, Is.Not.Empty);

            export.Before = _ => throw new NbdException(NbdError.IoError, "the disk is on fire");
            WireReply failed = await client.ExpectCallAsync(WireError.Io, command, 0, 512, payload: payload);
            Assert.That(failed.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.Error }));
            Assert.That(failed.Message, Is.EqualTo("the disk is on fire"));
            export.Before = null;
        }
        await client.ExpectAliveAsync(null);
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S155")]
    public async Task S155_A_fast_request_overtakes_a_slow_one(bool structured)
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(
            new TestExport { Before = call => call.Offset == 4096 ? gate.PassAsync() : default });
        WireClient client = await server.TransmitAsync(structured: structured);

        WireCall slow = await client.SendRequestAsync(Cmd.Read, 4096, 512);
        await gate.ArrivedAsync();
        Assert.That(await client.ReadDataAsync(0, 512), Is.EqualTo(server.Plugin.Data[..512]));
        gate.Open();
        WireReply late = await client.ReadReplyAsync();

        Assert.That(late.Cookie, Is.EqualTo(slow.Cookie));
        Assert.That(late.Data, Is.EqualTo(server.Plugin.Data[4096..4608]));
    }

    [Test, Property("Rule", "S155")]
    public async Task S155_Many_requests_that_finish_in_any_order_each_get_their_own_reply()
    {
        const int Seed = 155;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync(new TestExport
        {
            Before = async call =>
            {
                for (int i = (int)(call.Offset / 512 % 5); i > 0; i--)
                {
                    await Task.Yield();
                }
            },
        });
        WireClient client = await server.TransmitAsync(structured: true);
        for (int round = 0; round < 10; round++)
        {
            for (int i = 0; i < 100; i++)
            {
                await client.SendRequestAsync(Cmd.Read, (ulong)random.Next(60_000), (uint)random.Next(1, 5000));
            }
            for (int i = 0; i < 100; i++)
            {
                WireReply reply = await client.ReadReplyAsync();
                int offset = (int)reply.Call.Offset;
                Assert.That(
                    reply.Data.AsSpan().SequenceEqual(server.Plugin.Data.AsSpan(offset, (int)reply.Call.Length)),
                    $"seed {Seed}: {reply.Call}");
            }
        }
    }

    [Test, Property("Rule", "S156")]
    public async Task S156_FLUSH_is_answered_only_after_the_plugin_has_flushed()
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(
            new TestExport { Before = call => call.Op == PluginOp.Flush ? gate.PassAsync() : default });
        WireClient client = await server.TransmitAsync();
        await client.WriteDataAsync(0, [1]);

        WireCall flush = await client.SendRequestAsync(Cmd.Flush);
        await gate.ArrivedAsync();
        await client.ExpectAliveAsync(null);
        gate.Open();

        Assert.That((await client.ReadReplyAsync()).Call, Is.EqualTo(flush));
        Assert.That(
            server.Plugin.Calls.Select(call => call.Op),
            Is.EqualTo(new[] { PluginOp.Write, PluginOp.Flush, PluginOp.Read }));
    }

    [TestCase(Cmd.Write, PluginOp.Write)]
    [TestCase(Cmd.Trim, PluginOp.Trim)]
    [TestCase(Cmd.WriteZeroes, PluginOp.Zero)]
    [Property("Rule", "S157"), Property("Rule", "S158")]
    public async Task S157_S158_FUA_reaches_a_plugin_that_knows_it_and_is_a_flush_before_the_reply_for_others(
        ushort command, PluginOp op)
    {
        var gate = new Gate();
        var native = new TestExport("native");
        var emulated = new TestExport("emulated")
        {
            Configure = info => info with { CanFua = Support.Emulate },
            Before = call => call.Op == PluginOp.Flush ? gate.PassAsync() : default,
        };
        ServerFixture server = await ServeAsync(new TestPlugin(native, emulated));
        byte[]? payload = command == Cmd.Write ? new byte[512] : null;
        WireClient toNative = await server.TransmitAsync("native");
        WireClient toEmulated = await server.TransmitAsync("emulated");

        await toNative.ExpectCallAsync(WireError.Ok, command, 0, 512, CmdFlag.Fua, payload);
        PluginCall call = server.Plugin.Calls.Single();
        Assert.That((call.Op, call.Flags & RequestFlags.Fua), Is.EqualTo((op, RequestFlags.Fua)));

        WireCall sent = await toEmulated.SendRequestAsync(command, 0, 512, CmdFlag.Fua, payload);
        await gate.ArrivedAsync();
        await toEmulated.ExpectAliveAsync(null);
        gate.Open();

        Assert.That((await toEmulated.ReadReplyAsync()).Call, Is.EqualTo(sent));
        PluginCall[] calls = [.. server.Plugin.Calls.Skip(1)];
        Assert.That(calls.Select(c => c.Op), Is.EqualTo(new[] { op, PluginOp.Flush, PluginOp.Read }));
        Assert.That(calls[0].Flags & RequestFlags.Fua, Is.EqualTo(RequestFlags.None));
    }

    [Test, Property("Rule", "S158")]
    public async Task S158_FUA_is_accepted_on_every_command_once_it_is_advertised()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: true);
        foreach (ushort command in Cmd.Ranged)
        {
            byte[]? payload = command == Cmd.Write ? new byte[512] : null;
            await client.ExpectCallAsync(WireError.Ok, command, 0, 512, CmdFlag.Fua, payload);
        }
        await client.ExpectCallAsync(WireError.Ok, Cmd.Flush, flags: CmdFlag.Fua);
        await client.ExpectAliveAsync(null);
    }
}
