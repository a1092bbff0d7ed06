using System.Buffers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_CMD_READ ("Simple reply message", "Structured reply chunk message", "Request types").</summary>
public sealed class ReadTests : WireTest
{
    [Test, Property("Rule", "S180"), Property("Rule", "S004")]
    public async Task S180_S004_A_simple_reply_is_header_then_data_or_header_alone()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync();
        await client.SendAsync((byte[])
        [
            .. WireBytes.Request(Cmd.Read, 0x0102030405060708, 1, 3),
            .. WireBytes.Request(Cmd.Read, 0x1112131415161718, ulong.MaxValue, 3),
            .. WireBytes.Request(Cmd.Flush, 0x2122232425262728, 0, 0),
            .. WireBytes.Request(Cmd.Disc, 0, 0, 0),
        ]);

        byte[] bytes = await client.ReadToEndAsync();

        Assert.That(bytes, Is.EqualTo(new WireBytes()
            .U32(Magic.SimpleReply).U32(0).U64(0x0102030405060708).Raw(server.Plugin.Data.AsSpan(1, 3))
            .U32(Magic.SimpleReply).U32(WireError.Inval).U64(0x1112131415161718)
            .U32(Magic.SimpleReply).U32(0).U64(0x2122232425262728)
            .ToArray()));
    }

    [Test, Property("Rule", "S004"), Property("Rule", "S185"), Property("Rule", "S193"), Property("Rule", "S191")]
    public async Task S004_S185_S193_S191_Structured_replies_byte_for_byte()
    {
        ServerFixture server = await ServeAsync(
            new TestExport { Before = call => call.Offset == 7 ? throw new NbdException(NbdError.IoError, "bäd") : default });
        WireClient client = await server.TransmitAsync(structured: true);
        await client.SendAsync((byte[])
        [
            .. WireBytes.Request(Cmd.Read, 0x0102030405060708, 1, 3),
            .. WireBytes.Request(Cmd.Read, 0x1112131415161718, 7, 3),
            .. WireBytes.Request(Cmd.Read, 0x2122232425262728, 0, 0),
            .. WireBytes.Request(Cmd.Disc, 0, 0, 0),
        ]);

        byte[] bytes = await client.ReadToEndAsync();

        Assert.That(bytes, Is.EqualTo(new WireBytes()
            .U32(Magic.Chunk).U16(1).U16(ChunkType.OffsetData).U64(0x0102030405060708).U32(11)
            .U64(1).Raw(server.Plugin.Data.AsSpan(1, 3))
            .U32(Magic.Chunk).U16(1).U16(ChunkType.Error).U64(0x1112131415161718).U32(10)
            .U32(WireError.Io).U16(4).Raw("bäd"u8)
            .U32(Magic.Chunk).U16(1).U16(ChunkType.None).U64(0x2122232425262728).U32(0)
            .ToArray()));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S181"), Property("Rule", "S188"), Property("Rule", "S189"), Property("Rule", "S190")]
    [Property("Rule", "P35")]
    [Property("Threat", "P35")]
    public async Task S181_S188_S189_S190_P35_A_read_that_fails_half_way_sends_an_error_and_no_byte_of_the_data(bool structured)
    {
        var export = new TestExport(size: 1 << 20);
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(structured: structured);
        foreach (bool late in new[] { false, true })
        {
            foreach (uint length in new uint[] { 512, 100_000, 1 << 20 })
            {
                export.Before = async call =>
                {
                    call.Buffer.Span[..(call.Buffer.Length / 2)].Fill(0x77);
                    if (late)
                    {
                        await Task.Yield();
                    }
                    throw new NbdException(NbdError.IoError, "half way");
                };
                WireReply reply = await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, length);
                Assert.That(
                    reply.Chunks.Select(chunk => chunk.Type),
                    structured ? Is.EqualTo(new[] { ChunkType.Error }) : Is.Empty);
                Assert.That(reply.Chunks.Sum(chunk => chunk.Payload.Length), Is.LessThan(100));
                export.Before = null;
                await client.ExpectAliveAsync(export.Data);
            }
        }
    }

    [Test, Property("Rule", "P35")]
    [Property("Threat", "N03")]
    public async Task P35_What_one_client_wrote_or_read_never_shows_up_in_the_replies_of_another()
    {
        const byte Secret = 0xee;
        var export = new TestExport { Size = 4 << 20 };
        ServerFixture server = await ServeAsync(export);
        WireClient writer = await server.TransmitAsync();
        WireClient reader = await server.TransmitAsync(structured: true);
        foreach (uint length in new uint[] { 600, 70_000, 300_000 })
        {
            byte[] secret = new byte[length];
            secret.AsSpan().Fill(Secret);
            await writer.WriteDataAsync(1 << 20, secret);
            byte[] rented = ArrayPool<byte>.Shared.Rent((int)length);
            rented.AsSpan().Fill(Secret);
            ArrayPool<byte>.Shared.Return(rented);
            export.Before = _ => throw new NbdException(NbdError.IoError, "nothing was filled in");
            WireReply failed = await reader.ExpectCallAsync(WireError.Io, Cmd.Read, 0, length);
            export.Before = null;
            byte[] good = await reader.ReadDataAsync(2 << 20, length);

            Assert.That(failed.Chunks.SelectMany(chunk => chunk.Payload), Does.Not.Contain(Secret));
            Assert.That(good, Does.Not.Contain(Secret));
        }
    }

    [Test, Property("Rule", "S182"), Property("Threat", "nbd-server-simple-read-error")]
    public async Task S182_With_structured_replies_no_read_is_answered_by_a_simple_reply_whatever_is_wrong_with_it()
    {
        var export = new TestExport
        {
            Configure = info => info with { CanWrite = false, BlockSize = new BlockSize(512, 4096, 8192) },
        };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(structured: true);
        (ulong Offset, uint Length, ushort Flags)[] bad =
        [
            (0, 512, 0x8000), (0, 512, CmdFlag.NoHole), (0, 512, CmdFlag.Fua), (client.Size, 512, 0),
            (ulong.MaxValue, 1, 0), (1, 512, 0), (0, 1, 0), (0, 16_384, 0), (0, uint.MaxValue, 0),
        ];
        foreach ((ulong offset, uint length, ushort flags) in bad)
        {
            WireReply reply = await client.ExpectCallAsync(WireError.Inval, Cmd.Read, offset, length, flags);
            Assert.That(reply.IsStructured);
        }
        foreach (NbdError error in Enum.GetValues<NbdError>())
        {
            export.Before = _ => throw new NbdException(error, "no");
            Assert.That((await client.CallAsync(Cmd.Read, 0, 512)).IsStructured);
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S183"), Property("Rule", "S184"), Property("Rule", "S185"), Property("Rule", "S187")]
    [Property("Rule", "S194")]
    public async Task S183_S184_S185_S187_S194_Random_reads_are_covered_exactly_and_in_few_chunks(bool structured)
    {
        const int Seed = 183;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync(new TestExport(size: 100_003));
        WireClient client = await server.TransmitAsync(structured: structured);
        for (int i = 0; i < 1000; i++)
        {
            int offset = random.Next(100_003);
            int length = random.Next(1, Math.Min(5000, 100_003 - offset) + 1);
            // The client judges the grammar of the chunks.
            WireReply reply = await client.CallAsync(
                Cmd.Read, (ulong)offset, (uint)length, structured && i % 2 == 0 ? CmdFlag.Df : CmdFlag.None);
            Assert.That(
                reply.Data.AsSpan().SequenceEqual(server.Plugin.Data.AsSpan(offset, length)),
                $"seed {Seed}, round {i}: {reply.Call}");
            Assert.That(reply.Chunks, Has.Count.LessThanOrEqualTo(2));
        }
    }

    [Test, Property("Rule", "S186"), Property("Rule", "S196"), Property("Rule", "S197"), Property("Rule", "S235")]
    public async Task S186_S196_S197_S235_Holes_read_as_zeroes_fragmented_or_not()
    {
        byte[] data = TestExport.Pattern(256 << 10);
        data.AsSpan(10_000, 100_000).Clear();
        var export = new TestExport
        {
            Data = data,
            Extents = (_, extents) =>
            {
                extents.Add(0, 10_000, ExtentStatus.Data);
                extents.Add(10_000, 100_000, ExtentStatus.Hole | ExtentStatus.Zero);
                extents.Add(110_000, data.Length - 110_000, ExtentStatus.Data);
            },
        };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: true);
        (ulong, uint)[] ranges = [(0, 65_536), (9_999, 2), (10_000, 65_536), (109_999, 2), (0, 262_144)];
        foreach ((ulong offset, uint length) in ranges)
        {
            foreach (ushort flags in new[] { CmdFlag.None, CmdFlag.Df })
            {
                byte[] read = await client.ReadDataAsync(offset, length, flags);
                Assert.That(
                    read.AsSpan().SequenceEqual(data.AsSpan((int)offset, (int)length)),
                    $"{length} at {offset}, flags {flags}");
            }
        }
    }

    [Test, Property("Rule", "S192")]
    public async Task S192_An_error_is_told_once_and_without_an_offset()
    {
        ServerFixture server = await ServeAsync(
            new TestExport { Before = _ => throw new NbdException(NbdError.IoError, "bad sector") });
        WireClient client = await server.TransmitAsync(structured: true);
        foreach (uint length in new uint[] { 1, 512, 65_536 })
        {
            WireReply reply = await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, length);
            Assert.That(reply.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.Error }));
        }
    }

    [Test, Property("Rule", "S200")]
    public async Task S200_DF_without_structured_replies_is_an_error()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync();

        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512, CmdFlag.Df);

        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
