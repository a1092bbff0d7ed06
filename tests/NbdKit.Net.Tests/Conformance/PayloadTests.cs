using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Large payloads and refused payloads ("Size constraints").</summary>
public sealed class PayloadTests : WireTest
{
    private const int Largest = 32 << 20;

    [Test, Property("Rule", "S161"), Property("Rule", "P16")]
    [Property("Threat", "P16")]
    public async Task S161_P16_The_payload_of_a_refused_write_is_consumed_and_never_read_as_requests()
    {
        var readOnly = new TestExport("ro") { Configure = info => info with { CanWrite = false } };
        var aligned = new TestExport("aligned")
        {
            Configure = info => info with { BlockSize = new BlockSize(4096, 4096, 8192) },
        };
        ServerFixture server = await ServeAsync(new TestPlugin(readOnly, aligned, new TestExport("plain")));
        // A payload made of goodbyes and writes: whoever takes it for requests leaves or writes.
        byte[] trap = [.. Enumerable.Repeat(
            (byte[])[.. WireBytes.Request(Cmd.Write, 1, 0, 4), 1, 2, 3, 4, .. WireBytes.Request(Cmd.Disc, 2, 0, 0)], 300)
            .SelectMany(bytes => bytes)];
        foreach (bool structured in new[] { false, true })
        {
            foreach (int length in new[] { 60, 1000, trap.Length })
            {
                WireClient ro = await server.TransmitAsync("ro", structured);
                await ro.ExpectCallAsync(WireError.Perm, Cmd.Write, 0, (uint)length, payload: trap[..length]);
                await ro.ExpectAliveAsync(readOnly.Data);

                WireClient small = await server.TransmitAsync("aligned", structured);
                await small.ExpectCallAsync(WireError.Inval, Cmd.Write, 1, (uint)length, payload: trap[..length]);
                await small.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, 12_288, payload: trap[..12_288]);
                await small.ExpectAliveAsync(null, 4096);

                WireClient plain = await server.TransmitAsync("plain", structured);
                await plain.ExpectCallAsync(WireError.NoSpc, Cmd.Write, plain.Size, (uint)length, payload: trap[..length]);
                await plain.ExpectCallAsync(WireError.NoSpc, Cmd.Write, ulong.MaxValue, (uint)length, payload: trap[..length]);
                await plain.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, (uint)length, 0x8000, trap[..length]);
                await plain.ExpectAliveAsync(null);
            }
        }
        Assert.That(server.Plugin.Count(PluginOp.Write), Is.Zero);
    }

    [Test, Property("Rule", "S166")]
    public async Task S166_Without_constraints_single_bytes_can_be_read_and_written()
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 513));
        WireClient client = await server.TransmitAsync();
        foreach (ulong offset in new ulong[] { 0, 1, 511, 512 })
        {
            Assert.That(await client.ReadDataAsync(offset, 1), Is.EqualTo(new[] { server.Plugin.Data[offset] }));
            await client.WriteDataAsync(offset, [(byte)(offset + 1)]);
            Assert.That(server.Plugin.Data[offset], Is.EqualTo((byte)(offset + 1)));
        }
        Assert.That(await client.ReadDataAsync(0, 513), Is.EqualTo(server.Plugin.Data));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S166"), Property("Rule", "S198")]
    public async Task S166_S198_Without_constraints_32_MiB_can_be_read_and_written_at_once(bool structured)
    {
        ServerFixture server = await ServeAsync(new TestExport(size: Largest));
        WireClient client = await server.TransmitAsync(structured: structured);
        byte[] data = new byte[Largest];
        new Random(166).NextBytes(data);

        await client.WriteDataAsync(0, data);
        Assert.That(server.Plugin.Data.AsSpan().SequenceEqual(data));
        Assert.That((await client.ReadDataAsync(0, Largest)).AsSpan().SequenceEqual(data));
        Assert.That((await client.ReadDataAsync(1, Largest - 1)).AsSpan().SequenceEqual(data.AsSpan(1)));
        if (structured)
        {
            // Not to be fragmented: the client counts the chunks.
            Assert.That((await client.ReadDataAsync(0, Largest, CmdFlag.Df)).AsSpan().SequenceEqual(data));
        }
        await client.ExpectAliveAsync(data);
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S167"), Property("Rule", "P16"), Property("Rule", "S195")]
    public async Task S167_P16_S195_A_payload_above_the_maximum_of_the_export_is_refused_politely(bool structured)
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Size = 64 << 20,
            Configure = info => info with { BlockSize = new BlockSize(1, 4096, 1 << 20) },
        });
        WireClient client = await server.TransmitAsync(structured: structured);
        byte[] payload = new byte[Largest];

        await client.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, Largest, payload: payload);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Write, 0, (1 << 20) + 1, payload: payload[..((1 << 20) + 1)]);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, Largest);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, (1 << 20) + 1);
        Assert.That(server.Plugin.Calls, Is.Empty);

        await client.ExpectCallAsync(WireError.Ok, Cmd.Write, 0, 1 << 20, payload: payload[..(1 << 20)]);
        Assert.That(await client.ReadDataAsync(0, 1 << 20), Has.Length.EqualTo(1 << 20));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S195")]
    public async Task S195_No_chunk_carries_more_than_the_maximum_payload(bool structured)
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 256 << 10)
        {
            Configure = info => info with { BlockSize = new BlockSize(1, 4096, 64 << 10) },
        });
        WireClient client = await server.TransmitAsync(structured: structured);

        WireReply most = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 5, 64 << 10);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 5, (64 << 10) + 1);

        Assert.That(most.Data.AsSpan().SequenceEqual(server.Plugin.Data.AsSpan(5, 64 << 10)));
        Assert.That(most.Chunks.Select(chunk => chunk.Payload.Length), Has.All.LessThanOrEqualTo((64 << 10) + 8));
    }

    [TestCase((uint)Largest + 1)]
    [TestCase(1u << 31)]
    [TestCase(uint.MaxValue)]
    [Property("Rule", "S168"), Property("Rule", "S199"), Property("Rule", "P16"), Property("Rule", "P18")]
    [Property("Threat", "P16")]
    public async Task S168_S199_P16_P18_Above_32_MiB_a_read_is_refused_and_a_write_ends_the_connection(uint length)
    {
        ServerFixture server = await ServeAsync(new TestExport { Size = 1L << 40 });
        foreach (bool structured in new[] { false, true })
        {
            WireClient client = await server.TransmitAsync(structured: structured);
            await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, length);
            await client.ExpectAliveAsync(server.Plugin.Data);

            await client.SendRequestAsync(Cmd.Write, 0, length);

            await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        }
        Assert.That(server.Plugin.Count(PluginOp.Write), Is.Zero);
    }

    [TestCase(0u)]
    [TestCase(1u << 20)]
    [Property("Rule", "S169"), Property("Rule", "P18")]
    public async Task S169_P18_Commands_without_payload_may_be_as_long_as_a_length_can_say(uint maximum)
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Size = 1L << 40,
            Configure = info => maximum == 0 ? info : info with { BlockSize = new BlockSize(1, 4096, maximum) },
        });
        WireClient client = await server.TransmitAsync(meta: true);
        foreach (ushort command in new[] { Cmd.Trim, Cmd.WriteZeroes, Cmd.Cache, Cmd.BlockStatus })
        {
            await client.ExpectCallAsync(WireError.Ok, command, 1 << 20, 1u << 31);
            await client.ExpectCallAsync(WireError.Ok, command, 1 << 20, uint.MaxValue);
        }
        Assert.That(server.Plugin.Calls.Select(call => call.Length), Is.EquivalentTo(
            Enumerable.Repeat(1L << 31, 4).Concat(Enumerable.Repeat((long)uint.MaxValue, 4))));
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S174")]
    public async Task S174_Requests_beyond_the_memory_that_a_connection_may_hold_wait_and_succeed()
    {
        var options = new NbdServerOptions
        {
            MaxBytesInFlight = 100_000,
            MaxServerBytesInFlight = 150_000,
            MaxRequestsInFlight = 3,
        };
        ServerFixture server = await ServeAsync(
            new TestExport(size: 256 << 10) { Before = async _ => await Task.Yield() }, options);
        WireClient[] clients =
        [
            await server.TransmitAsync(pipes: new PipePair(serverOutputLimit: 50_000)),
            await server.TransmitAsync(structured: true, pipes: new PipePair(serverOutputLimit: 50_000)),
        ];
        for (int i = 0; i < 50; i++)
        {
            foreach (WireClient client in clients)
            {
                await client.SendRequestAsync(Cmd.Read, (ulong)i, (uint)(i % 7 == 0 ? 200_000 : 30_000));
                await client.SendRequestAsync(Cmd.Write, 200_000, 40_000, payload: new byte[40_000]);
            }
        }
        await Task.WhenAll(clients.Select(ReadAllAsync));

        static async Task ReadAllAsync(WireClient client)
        {
            for (int i = 0; i < 100; i++)
            {
                WireReply reply = await client.ReadReplyAsync();
                Assert.That(reply.Error, Is.Zero, $"{reply.Call}");
            }
        }
    }

    [Test, Property("Rule", "P14")]
    [Property("Threat", "P14")]
    public async Task P14_Clients_that_take_no_replies_hold_a_bounded_amount_and_do_not_stop_the_others()
    {
        var options = new NbdServerOptions { MaxBytesInFlight = 512 << 10, MaxServerBytesInFlight = 1 << 20 };
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport(size: 128 << 10)), options);
        WireClient bystander = await server.TransmitAsync();
        for (int i = 0; i < 10; i++)
        {
            WireClient deaf = await server.TransmitAsync(pipes: new PipePair(serverOutputLimit: 10_000));
            for (int j = 0; j < 64; j++)
            {
                await deaf.SendRequestAsync(Cmd.Read, 0, 100_000);
            }
            await bystander.ExpectAliveAsync(server.Plugin.Data);
        }
        for (int i = 0; i < 50; i++)
        {
            Assert.That(await bystander.ReadDataAsync((ulong)i, 4096), Is.EqualTo(server.Plugin.Data[i..(i + 4096)]));
        }
        Assert.That(server.Plugin.Calls.Count(call => call.Length == 100_000), Is.LessThan(30));
    }
}
