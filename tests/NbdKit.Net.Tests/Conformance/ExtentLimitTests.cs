using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>What stands between the extents of a plugin and the wire: 32-bit lengths, nonsense, faults.</summary>
public sealed class ExtentLimitTests : WireTest
{
    private const long Huge = 6L << 60;
    private const int Lists = 15_000;

    [Test, Property("Rule", "S237"), Property("Rule", "P34")]
    [Property("Threat", "P34")]
    public async Task S237_P34_A_plugin_that_fails_or_tells_nothing_is_an_error_and_the_session_goes_on()
    {
        var export = new TestExport();
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: true);
        Action<PluginCall, ExtentList>[] broken =
        [
            (_, _) => { },
            (_, extents) => extents.Add(0, 0, ExtentStatus.Data),
            (call, extents) => extents.Add(call.Offset + 1, 512, ExtentStatus.Data),
            (call, _) => throw new NbdException(NbdError.IoError, $"no map at {call.Offset}"),
            (_, _) => throw new InvalidOperationException(),
            (_, extents) => extents.Add(-1, 512, ExtentStatus.Data),
            (_, extents) => extents.Add(0, -1, ExtentStatus.Data),
            (_, extents) => extents.Add(1, long.MaxValue, ExtentStatus.Data),
            (_, extents) =>
            {
                extents.Add(0, 512, ExtentStatus.Data);
                extents.Add(0, 512, ExtentStatus.Hole);
            },
            (_, extents) =>
            {
                extents.Add(0, 512, ExtentStatus.Data);
                extents.Add(1024, 512, ExtentStatus.Hole);
            },
        ];
        foreach (Action<PluginCall, ExtentList> extents in broken)
        {
            foreach (ushort flags in new[] { CmdFlag.None, CmdFlag.ReqOne })
            {
                export.Extents = extents;
                WireReply reply = await client.CallAsync(Cmd.BlockStatus, 0, 4096, flags);
                Assert.That(reply.Error, Is.Not.Zero);
                Assert.That(reply.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.Error }));
                export.Extents = null;
                await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 4096, flags);
            }
        }
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(0L)]
    [TestCase(4096L)]
    [Property("Rule", "S238"), Property("Rule", "P34")]
    [Property("Threat", "CVE-2025-47711"), Property("Threat", "P34")]
    public async Task S238_P34_Extents_of_any_length_are_cut_to_32_bits_without_wrapping(long minimum)
    {
        long extentLength = 0;
        var export = new TestExport
        {
            Size = Huge,
            Configure = info => minimum == 0 ? info : info with { BlockSize = new BlockSize(minimum, 65_536) },
            Extents = (call, extents) => extents.Add(
                call.Offset, Math.Min(extentLength, Huge - call.Offset), ExtentStatus.Hole),
        };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: true);
        long[] lengths =
        [
            1, (1L << 32) - 65_536, (1L << 32) - 2, (1L << 32) - 1, 1L << 32, (1L << 32) + 1, 1L << 40, long.MaxValue,
        ];
        foreach (long length in lengths.Where(length => minimum == 0 || length >= minimum))
        {
            extentLength = length;
            foreach (ulong offset in new[] { 0ul, 1ul << 40, (ulong)Huge - (8ul << 30), (ulong)Huge - (1ul << 32) })
            {
                foreach (uint request in new[] { 4096u, 1u << 31, uint.MaxValue - 4095, uint.MaxValue - 1, uint.MaxValue })
                {
                    if (minimum != 0 && request % minimum != 0)
                    {
                        continue;
                    }
                    foreach (ushort flags in new[] { CmdFlag.None, CmdFlag.ReqOne })
                    {
                        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, offset, request, flags);
                        WireExtent extent = reply.Extents[0];
                        string what = $"{length} for {reply.Call}: {extent}";
                        Assert.That(extent.Status, Is.EqualTo(1), what);
                        if (minimum == 0)
                        {
                            // Never longer than the truth, and cut no shorter than 64 KiB below 2^32 unless asked.
                            long truth = (flags & CmdFlag.ReqOne) != 0 ? Math.Min(length, request) : length;
                            Assert.That(extent.Length, Is.LessThanOrEqualTo(truth), what);
                            Assert.That(extent.Length, Is.GreaterThanOrEqualTo(Math.Min(truth, 0xffff_0000)), what);
                        }
                        Assert.That(extent.Length, Is.LessThanOrEqualTo((ulong)Huge - offset), what);
                    }
                }
            }
        }
    }

    [Test, Property("Rule", "S238")]
    public async Task S238_Extents_that_go_beyond_the_end_of_the_export_are_cut_there()
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 10_000)
        {
            Extents = (_, extents) =>
            {
                extents.Add(0, 5000, ExtentStatus.Data);
                extents.Add(5000, 1L << 50, ExtentStatus.Zero);
                extents.Add((1L << 50) + 5000, 1L << 50, ExtentStatus.Hole);
            },
        });
        WireClient client = await server.TransmitAsync(meta: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 10_000);

        Assert.That(reply.Extents, Is.EqualTo(new[] { new WireExtent(5000, 0), new WireExtent(5000, 2) }));
    }

    [Test, Property("Rule", "P34"), Property("Rule", "S228")]
    [Property("Threat", "P34")]
    public async Task P34_S228_Random_nonsense_of_a_plugin_is_either_an_error_or_legal_on_the_wire()
    {
        const int Seed = 34;
        var random = new Random(Seed);
        long[] corners =
        [
            0, 1, 511, 512, 4096, 65_535, 65_536, 1L << 32, (1L << 32) - 1, long.MaxValue, long.MaxValue - 1, -1, long.MinValue,
        ];
        var export = new TestExport
        {
            Extents = (call, extents) =>
            {
                long at = random.Next(3) == 0 ? corners[random.Next(corners.Length)] : call.Offset;
                for (int i = random.Next(6); i > 0; i--)
                {
                    long length = random.Next(3) == 0 ? corners[random.Next(corners.Length)] : random.Next(9000);
                    extents.Add(at, length, (ExtentStatus)random.NextInt64(random.Next(2) == 0 ? 4 : long.MaxValue));
                    at = random.Next(8) == 0 ? random.NextInt64() : unchecked(at + length);
                }
            },
        };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: true);
        for (int i = 0; i < Lists; i++)
        {
            int offset = random.Next(64 << 10);
            uint length = (uint)random.Next(1, (64 << 10) - offset + 1);
            // The client judges each reply.
            await client.CallAsync(
                Cmd.BlockStatus, (ulong)offset, length, random.Next(2) == 0 ? CmdFlag.None : CmdFlag.ReqOne);
        }
        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
