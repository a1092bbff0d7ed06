using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_CMD_BLOCK_STATUS: when it is answered, and with what ("Request types", "base: metadata context").</summary>
public sealed class BlockStatusTests : WireTest
{
    private static readonly ExtentStatus Nothing = ExtentStatus.Hole | ExtentStatus.Zero;

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S225"), Property("Rule", "P23")]
    public async Task S225_P23_Without_a_negotiated_context_it_is_invalid(bool structured)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(structured: structured);

        WireReply reply = await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);

        Assert.That(reply.IsStructured, Is.EqualTo(structured));
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S226"), Property("Rule", "S227"), Property("Rule", "S004")]
    public async Task S226_S227_S004_The_reply_is_one_chunk_with_the_id_that_was_told_and_the_descriptors()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Extents = (_, extents) =>
            {
                extents.Add(0, 0x1000, ExtentStatus.Data);
                extents.Add(0x1000, 0x2000, Nothing);
                extents.Add(0x3000, 0x800, ExtentStatus.Zero);
                extents.Add(0x3800, 0x800, ExtentStatus.Hole);
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 0x4000);

        WireChunk chunk = reply.Chunks.Single();
        Assert.That(chunk.IsDone);
        Assert.That(chunk.Type, Is.EqualTo(ChunkType.BlockStatus));
        Assert.That(chunk.Payload, Is.EqualTo(new WireBytes()
            .U32(client.ContextIds.Single())
            .U32(0x1000).U32(0).U32(0x2000).U32(3).U32(0x800).U32(2).U32(0x800).U32(1)
            .ToArray()));
    }

    [Test, Property("Rule", "S125"), Property("Rule", "S126"), Property("Rule", "S226")]
    public async Task S125_S126_S226_Only_contexts_of_registered_namespaces_are_told_whatever_a_plugin_claims()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { MetaContexts = ["base:allocation", "qemu:allocation-depth"] },
        });
        foreach (string name in new[] { "evil", "unregistered:thing", ":", "", "base:a\0", "base:" + new string('a', 4092) })
        {
            Assert.That(
                () => server.Plugin.Export.Info with { MetaContexts = [name] }, Throws.ArgumentException, $"'{name}' is refused");
        }
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        await client.InfoAsync();

        OptionResult list = await client.ListMetaAsync();
        OptionResult set = await client.SetMetaAsync("", "evil", "unregistered:thing", ":", "", "base:allocation");
        await client.GoAsync();

        foreach (OptionResult result in new[] { list, set })
        {
            Assert.That(result.IsAck);
            Assert.That(
                result.Before.Select(reply => reply.ContextName),
                Is.EqualTo(result == list ? new[] { "base:allocation", "qemu:allocation-depth" } : ["base:allocation"]));
        }
        await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
    }

    [Test, Property("Rule", "S227"), Property("Rule", "S228"), Property("Threat", "nbdkit-80033669")]
    public async Task S227_S228_Only_the_last_descriptor_may_pass_the_request()
    {
        const int Seed = 228;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync(new TestExport
        {
            Extents = (call, extents) =>
            {
                long at = call.Offset - random.Next((int)Math.Min(call.Offset, 3000) + 1);
                while (at < 64 << 10 && (at <= call.Offset || random.Next(100) > 0))
                {
                    long length = Math.Min(random.Next(1, 5000), (64 << 10) - at);
                    extents.Add(at, length, (ExtentStatus)random.Next(4));
                    at += length;
                }
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);
        for (int i = 0; i < 500; i++)
        {
            int offset = random.Next(64 << 10);
            int length = random.Next(1, (64 << 10) - offset + 1);
            // The client judges each reply by the rules for descriptors.
            WireReply reply = await client.ExpectCallAsync(
                WireError.Ok, Cmd.BlockStatus, (ulong)offset, (uint)length, i % 3 == 0 ? CmdFlag.ReqOne : CmdFlag.None);
            Assert.That(
                offset + reply.Extents.Sum(extent => (long)extent.Length), Is.LessThanOrEqualTo(64 << 10), $"seed {Seed}, round {i}");
        }
    }

    [Test, Property("Rule", "S229")]
    public async Task S229_REQ_ONE_gets_one_descriptor_that_ends_inside_the_request()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Extents = (_, extents) =>
            {
                extents.Add(0, 8192, Nothing);
                extents.Add(8192, (64 << 10) - 8192, ExtentStatus.Data);
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply within = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 4096, CmdFlag.ReqOne);
        WireReply across = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 4096, 8192, CmdFlag.ReqOne);
        WireReply single = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 8191, 1, CmdFlag.ReqOne);

        Assert.That(within.Extents, Is.EqualTo(new[] { new WireExtent(4096, 3) }));
        Assert.That(across.Extents, Is.EqualTo(new[] { new WireExtent(4096, 3) }));
        Assert.That(single.Extents, Is.EqualTo(new[] { new WireExtent(1, 3) }));
        Assert.That(
            server.Plugin.Calls.Select(call => call.Flags),
            Has.All.EqualTo(RequestFlags.RequestOne),
            "the plugin may stop early");
    }

    [Test, Property("Rule", "S230"), Property("Rule", "P34")]
    public async Task S230_P34_A_reply_has_a_bounded_number_of_descriptors()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Size = 1L << 30,
            Extents = (_, extents) =>
            {
                for (long i = 0; i < 1 << 21; i++)
                {
                    extents.Add(i * 512, 512, i % 2 == 0 ? ExtentStatus.Data : Nothing);
                }
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 1 << 30);

        Assert.That(reply.Extents, Has.Count.EqualTo(ExtentList.DefaultMaximumCount));
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S231")]
    public async Task S231_Descriptors_are_multiples_of_the_minimum_block_except_at_the_end()
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 20_000)
        {
            Configure = info => info with { BlockSize = new BlockSize(4096, 4096, 1 << 20) },
            Extents = (_, extents) =>
            {
                extents.Add(0, 1000, Nothing);
                extents.Add(1000, 7500, ExtentStatus.Data);
                extents.Add(8500, 8000, Nothing);
                extents.Add(16_500, 3500, ExtentStatus.Zero);
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply all = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 20_000);
        WireReply part = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 8192, 4096);
        WireReply one = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 12_288, 4096, CmdFlag.ReqOne);

        // A block promises only what every byte of it does.
        Assert.That(all.Extents, Is.EqualTo(new[]
        {
            new WireExtent(12_288, 0), new WireExtent(4096, 3), new WireExtent(3616, 2),
        }));
        Assert.That(part.Extents[0].Length % 4096, Is.Zero);
        Assert.That(part.Extents[0].Status, Is.Zero);
        Assert.That(one.Extents, Is.EqualTo(new[] { new WireExtent(4096, 3) }));
    }

    [Test, Property("Rule", "S232")]
    public async Task S232_Neighbours_of_equal_status_are_one_descriptor()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Extents = (_, extents) =>
            {
                for (int i = 0; i < 128; i++)
                {
                    extents.Add(i * 512, 512, i < 64 ? ExtentStatus.Data : Nothing);
                }
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 64 << 10);

        Assert.That(reply.Extents, Is.EqualTo(new[] { new WireExtent(32 << 10, 0), new WireExtent(32 << 10, 3) }));
    }

    [Test, Property("Rule", "S233"), Property("Rule", "S234")]
    public async Task S233_S234_Only_the_defined_bits_travel_and_those_as_the_plugin_gave_them()
    {
        ulong[] statuses = [0, 1, 2, 3, 4, 0xfffffffc, 0xffffffff, 1ul << 32, ulong.MaxValue];
        ServerFixture server = await ServeAsync(new TestExport
        {
            Extents = (_, extents) =>
            {
                for (int i = 0; i < statuses.Length; i++)
                {
                    extents.Add(i * 512, 512, (ExtentStatus)statuses[i]);
                }
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);
        for (int i = 0; i < statuses.Length; i++)
        {
            WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, (ulong)i * 512, 512, CmdFlag.ReqOne);
            Assert.That(reply.Extents.Single().Status, Is.EqualTo((uint)(statuses[i] & 3)), $"0x{statuses[i]:x}");
        }
        // Bits 0 and 1 mean what they say on the wire: a layer that promises space (no HOLE) has to keep it.
        WireReply all = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, (uint)statuses.Length * 512);
        Assert.That(all.Extents.Sum(extent => (long)extent.Length), Is.EqualTo(statuses.Length * 512));
    }

    [Test, Property("Rule", "S236")]
    public async Task S236_A_range_beyond_the_end_is_invalid()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: true);
        (ulong, uint)[] beyond = [(client.Size, 1), (client.Size - 1, 2), (ulong.MaxValue, 1), (0, uint.MaxValue)];
        foreach ((ulong offset, uint length) in beyond)
        {
            await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, offset, length);
            await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, offset, length, CmdFlag.ReqOne);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
    }

    [Test, Property("Rule", "S225"), Property("Rule", "S235")]
    public async Task S225_S235_A_plugin_without_extents_is_all_data()
    {
        ServerFixture server = await ServeAsync(new TestExport { Configure = info => info with { CanExtents = false } });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 100, 1000);

        Assert.That(reply.Extents, Is.EqualTo(new[] { new WireExtent(1000, 0) }));
        Assert.That(server.Plugin.Calls, Is.Empty);
    }
}
