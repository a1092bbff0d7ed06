using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_CMD_DISC, clients that leave without it, and clients that stay.</summary>
public sealed class DisconnectTests : WireTest
{
    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S208"), Property("Rule", "P25")]
    [Property("Threat", "P25")]
    public async Task S208_P25_Requests_in_flight_are_answered_before_the_goodbye_takes_effect(bool structured)
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(new TestExport { Before = _ => gate.PassAsync() });
        WireClient client = await server.TransmitAsync(structured: structured);
        for (int i = 0; i < 16; i++)
        {
            await client.SendRequestAsync(Cmd.Write, (ulong)i * 512, 512, payload: [.. Enumerable.Repeat((byte)(i + 1), 512)]);
        }
        await client.SendRequestAsync(Cmd.Disc);
        await gate.ArrivedAsync(16);

        gate.Open();

        for (int i = 0; i < 16; i++)
        {
            Assert.That((await client.ReadReplyAsync()).Error, Is.Zero);
        }
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        for (int i = 0; i < 16; i++)
        {
            Assert.That(server.Plugin.Data[i * 512], Is.EqualTo(i + 1));
        }
    }

    [TestCase(0ul, 0u, 0)]
    [TestCase(5ul, 0u, 0)]
    [TestCase(0ul, 512u, 0)]
    [TestCase(ulong.MaxValue, uint.MaxValue, 0xffff)]
    [Property("Rule", "S208"), Property("Rule", "S209"), Property("Rule", "P25")]
    [Property("Threat", "P25")]
    public async Task S208_S209_P25_DISC_is_not_answered_and_nothing_behind_it_is_executed(ulong offset, uint length, int flags)
    {
        ServerFixture server = await ServeAsync();
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync();

        await client.SendAsync((byte[])
        [
            .. WireBytes.Request(Cmd.Disc, 1, offset, length, (ushort)flags),
            .. WireBytes.Request(Cmd.Write, 2, 0, 512), .. new byte[512],
            .. WireBytes.Request(Cmd.WriteZeroes, 3, 0, 512),
        ]);

        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        Assert.That(server.Plugin.Calls, Is.Empty);
        Assert.That(server.Plugin.Data, Is.EqualTo(before));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "P26"), Property("Rule", "S245")]
    [Property("Threat", "P26")]
    public async Task P26_S245_After_a_half_close_every_request_that_was_sent_is_answered(bool structured)
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(
            new TestExport(size: 1 << 20) { Before = call => call.Offset % 2048 == 0 ? gate.PassAsync() : default });
        WireClient client = await server.TransmitAsync(structured: structured);
        for (int i = 0; i < 40; i++)
        {
            await client.SendRequestAsync(Cmd.Read, (ulong)i * 1024, (uint)(i % 5 == 0 ? 100_000 : 1000));
        }
        await client.FinishAsync();
        await gate.ArrivedAsync(20);

        gate.Open();

        for (int i = 0; i < 40; i++)
        {
            WireReply reply = await client.ReadReplyAsync();
            Assert.That(reply.Data.AsSpan().SequenceEqual(
                server.Plugin.Data.AsSpan((int)reply.Call.Offset, (int)reply.Call.Length)), $"{reply.Call}");
        }
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientGone);
    }

    [Test, Property("Rule", "P27"), Property("Rule", "P26")]
    [Property("Threat", "P27")]
    public async Task P27_P26_A_client_that_is_reset_with_requests_in_flight_cancels_them_and_leaves_nothing_behind()
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(new TestExport
        {
            Before = call => call.Offset == 0 ? default : gate.PassAsync(call.CancellationToken),
        });
        WireClient client = await server.TransmitAsync();
        for (int i = 1; i <= 20; i++)
        {
            await client.SendRequestAsync(
                i % 2 == 0 ? Cmd.Read : Cmd.Write, (ulong)i, 512, payload: i % 2 == 0 ? null : new byte[512]);
        }
        await gate.ArrivedAsync(20);
        // A pipe tells that its reader is gone only to a writer: one more reply is due.
        await client.SendRequestAsync(Cmd.Read, 0, 512);
        await client.CutAsync();

        await client.ExpectEndAsync();

        WireClient next = await server.TransmitAsync();
        await next.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S210")]
    public async Task S210_A_client_that_is_idle_between_requests_stays_connected()
    {
        var clock = new FakeTimeProvider();
        ServerFixture server = await ServeAsync(new TestPlugin(), new NbdServerOptions { TimeProvider = clock });
        WireClient client = await server.TransmitAsync();
        WireClient structured = await server.TransmitAsync(structured: true);
        for (int i = 0; i < 10; i++)
        {
            clock.Advance(TimeSpan.FromMinutes(30));
            await client.ExpectAliveAsync(server.Plugin.Data);
        }
        await structured.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S210"), Property("Rule", "S029")]
    public async Task S210_S029_Errors_of_any_kind_do_not_end_a_connection()
    {
        const int Seed = 210;
        var random = new Random(Seed);
        int calls = 0;
        ServerFixture server = await ServeAsync(new TestExport
        {
            Before = async _ =>
            {
                int n = Interlocked.Increment(ref calls);
                if (n % 3 == 0)
                {
                    await Task.Yield();
                }
                if (n % 2 == 0)
                {
                    throw n % 4 == 0 ? new NbdException(NbdError.IoError, "broken") : new InvalidDataException();
                }
            },
        });
        foreach (bool structured in new[] { false, true })
        {
            WireClient client = await server.TransmitAsync(meta: structured);
            for (int i = 0; i < 500; i++)
            {
                ushort command = (ushort)random.Next(12);
                if (command == Cmd.Disc)
                {
                    continue;
                }
                uint length = (uint)random.Next(5000);
                ulong offset = random.Next(4) == 0 ? (ulong)random.NextInt64() : (ulong)random.Next(65_536);
                ushort flags = random.Next(2) == 0 ? CmdFlag.None : (ushort)random.Next(65_536);
                WireReply reply = await client.CallAsync(
                    command, offset, length, flags, command == Cmd.Write ? new byte[length] : null, (ulong)random.NextInt64());
                Assert.That(reply.Call.Command, Is.EqualTo(command), $"seed {Seed}, round {i}");
            }
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        }
    }

    [Test, Property("Rule", "S209"), Property("Rule", "P11")]
    [Property("Threat", "P11")]
    public async Task S209_P11_Requests_before_a_violation_are_answered_and_nothing_after_it_is()
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(new TestExport { Before = _ => gate.PassAsync() });
        WireClient client = await server.TransmitAsync();
        WireCall read = client.Expect(Cmd.Read, 0, 512);

        await client.SendAsync((byte[])
        [
            .. WireBytes.Request(Cmd.Read, read.Cookie, 0, 512),
            .. WireBytes.Request(Cmd.Write, 2, 0, 512, magic: 0x12560953), .. new byte[512],
        ]);
        await gate.ArrivedAsync();
        gate.Open();

        byte[] rest = await client.ReadToEndAsync();
        Assert.That(rest, Has.Length.EqualTo(0).Or.Length.EqualTo(16 + 512), "the reply to the read, or nothing");
        await client.ExpectEndAsync(NbdDisconnectReason.ProtocolViolation);
        Assert.That(server.Plugin.Count(PluginOp.Write), Is.Zero);
    }
}
