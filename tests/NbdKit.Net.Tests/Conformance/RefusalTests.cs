using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Requests that are refused: flags, commands, ranges, alignment ("Error values", "Command flags").</summary>
public sealed class RefusalTests : WireTest
{
    private static readonly ushort[] Commands = [0, 1, 3, 4, 5, 6, 7, 8, 9, 255];

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S159"), Property("Rule", "P21"), Property("Rule", "X25")]
    [Property("Threat", "P21")]
    public async Task S159_P21_X25_Every_flag_on_every_command_is_either_documented_there_or_invalid(bool structured)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: structured);
        foreach (ushort command in Commands)
        {
            for (int bit = 0; bit < 16; bit++)
            {
                ushort flag = (ushort)(1 << bit);
                bool allowed = flag switch
                {
                    CmdFlag.Fua => true,
                    CmdFlag.NoHole or CmdFlag.FastZero => command == Cmd.WriteZeroes,
                    CmdFlag.Df => command == Cmd.Read && structured,
                    CmdFlag.ReqOne => command == Cmd.BlockStatus,
                    _ => false,
                };
                bool known = command < Cmd.BlockStatus || (command == Cmd.BlockStatus && structured);
                WireReply reply = await client.CallAsync(
                    command, 0, command == Cmd.Flush ? 0u : 512u, flag, command == Cmd.Write ? new byte[512] : null);
                Assert.That(reply.Error, Is.EqualTo(allowed && known ? WireError.Ok : WireError.Inval), $"{reply.Call}");
            }
        }
        await client.ExpectAliveAsync(null);
    }

    [Test, Property("Rule", "S159"), Property("Rule", "P21")]
    [Property("Threat", "P21")]
    public async Task S159_P21_FUA_that_is_not_advertised_is_invalid()
    {
        ServerFixture server = await ServeAsync(new TestExport { Configure = info => info with { CanFua = Support.None } });
        WireClient client = await server.TransmitAsync();
        Assert.That(client.Flags & TxFlag.SendFua, Is.Zero);
        foreach (ushort command in new[] { Cmd.Read, Cmd.Write, Cmd.Trim, Cmd.Cache, Cmd.WriteZeroes, Cmd.Flush })
        {
            await client.ExpectCallAsync(
                WireError.Inval, command, 0, command == Cmd.Flush ? 0u : 512u, CmdFlag.Fua,
                command == Cmd.Write ? new byte[512] : null);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S160"), Property("Rule", "P22"), Property("Rule", "R01")]
    public async Task S160_P22_R01_Unknown_commands_are_invalid_and_do_nothing(bool structured)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(structured: structured);
        Assert.That(client.Flags & TxFlag.SendResize, Is.Zero);
        foreach (ushort command in new ushort[] { Cmd.Resize, 9, 10, 255, 256, 0x0100, 0x7fff, 0x8000, 0xffff })
        {
            await client.ExpectCallAsync(WireError.Inval, command, 0, 512);
            await client.ExpectCallAsync(WireError.Inval, command, 1024, uint.MaxValue);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S162"), Property("Rule", "P18")]
    [Property("Threat", "P18")]
    public async Task S162_P18_Writes_beyond_the_end_have_no_space_and_write_nothing_before_it()
    {
        ServerFixture server = await ServeAsync();
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync();
        (ulong, uint)[] beyond = [(client.Size, 1), (client.Size - 1, 2), (client.Size + 1, 1), (0, 65_537)];
        foreach ((ulong offset, uint length) in beyond)
        {
            await client.ExpectCallAsync(WireError.NoSpc, Cmd.Write, offset, length, payload: new byte[length]);
            await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, offset, length);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        Assert.That(server.Plugin.Data, Is.EqualTo(before));
        await client.WriteDataAsync(client.Size - 1, [9]);
        Assert.That(server.Plugin.Data[^1], Is.EqualTo(9));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S163"), Property("Rule", "S236"), Property("Rule", "P17"), Property("Rule", "P18")]
    public async Task S163_S236_P17_P18_No_offset_or_length_gets_around_the_end_of_the_export(bool structured)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: structured);
        ulong size = client.Size;
        ulong[] offsets =
        [
            size - 511, size, size + 1, uint.MaxValue, 1ul << 32, (1ul << 63) - 512, (1ul << 63) - 1, 1ul << 63,
            ulong.MaxValue - 511, ulong.MaxValue - 510, ulong.MaxValue - 1, ulong.MaxValue,
        ];
        foreach (ushort command in Cmd.Ranged)
        {
            bool grows = command is Cmd.Write or Cmd.WriteZeroes;
            if (command == Cmd.BlockStatus && !structured)
            {
                continue;
            }
            foreach (ulong offset in offsets)
            {
                foreach (uint length in new[] { 512u, 65_536u })
                {
                    await client.ExpectCallAsync(
                        grows ? WireError.NoSpc : WireError.Inval, command, offset, length,
                        payload: command == Cmd.Write ? new byte[length] : null);
                }
                foreach (uint length in new[] { 0x7fffffffu, 0x80000000u, uint.MaxValue })
                {
                    if (command != Cmd.Write)
                    {
                        await client.ExpectCallAsync(grows ? WireError.NoSpc : WireError.Inval, command, offset, length);
                    }
                }
            }
        }
        // With chunks a read gets what there is of its range, and where that ends.
        Assert.That(
            server.Plugin.Calls.Where(call => !structured || call is not { Op: PluginOp.Read, Length: 511 } || call.Offset != (long)size - 511),
            Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S164"), Property("Rule", "P20")]
    [Property("Threat", "P20")]
    public async Task S164_P20_Requests_that_are_not_aligned_to_the_minimum_are_invalid_and_change_nothing()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { BlockSize = new BlockSize(4096, 4096, 1 << 20) },
        });
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync(meta: true);
        (ulong, uint)[] misaligned = [(1, 4096), (2048, 4096), (4096, 1), (4096, 2048), (0, 4097)];
        foreach ((ulong offset, uint length) in misaligned)
        {
            foreach (ushort command in Cmd.Ranged)
            {
                await client.ExpectCallAsync(
                    WireError.Inval, command, offset, length, payload: command == Cmd.Write ? new byte[length] : null);
            }
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        Assert.That(server.Plugin.Data, Is.EqualTo(before));
        foreach (ushort command in Cmd.Ranged)
        {
            await client.ExpectCallAsync(
                WireError.Ok, command, 4096, 4096, payload: command == Cmd.Write ? new byte[4096] : null);
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S177"), Property("Rule", "P19")]
    public async Task S177_P19_Requests_without_a_length_succeed_inside_the_export_and_never_end_the_connection(bool structured)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: structured);
        foreach (ushort command in Cmd.Ranged)
        {
            if (command == Cmd.BlockStatus)
            {
                // A status needs an extent, and an extent of no bytes is not legal: error or not, it is answered.
                WireReply status = await client.CallAsync(command, 0, 0);
                Assert.That(status.Error, Is.EqualTo(WireError.Inval));
                continue;
            }
            byte[]? payload = command == Cmd.Write ? [] : null;
            foreach (ulong offset in new[] { 0ul, 1ul, client.Size - 1, client.Size })
            {
                WireReply reply = await client.ExpectCallAsync(WireError.Ok, command, offset, 0, payload: payload);
                Assert.That(reply.Data, Is.Empty);
                if (command == Cmd.Read && structured)
                {
                    Assert.That(reply.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.None }));
                }
            }
            uint error = command is Cmd.Write or Cmd.WriteZeroes ? WireError.NoSpc : WireError.Inval;
            await client.ExpectCallAsync(error, command, client.Size + 1, 0, payload: payload);
            await client.ExpectCallAsync(error, command, ulong.MaxValue, 0, payload: payload);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S178"), Property("Rule", "P22")]
    [Property("Threat", "P22")]
    public async Task S178_P22_FLUSH_needs_to_be_advertised_and_has_no_range()
    {
        ServerFixture with = await ServeAsync();
        ServerFixture without = await ServeAsync(new TestExport
        {
            Configure = info => info with { CanFlush = false, CanFua = Support.None },
        });
        WireClient flushing = await with.TransmitAsync();
        WireClient plain = await without.TransmitAsync();

        await flushing.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        await flushing.ExpectCallAsync(WireError.Inval, Cmd.Flush, 1, 0);
        await flushing.ExpectCallAsync(WireError.Inval, Cmd.Flush, 0, 1);
        await flushing.ExpectCallAsync(WireError.Inval, Cmd.Flush, ulong.MaxValue, uint.MaxValue);
        await plain.ExpectCallAsync(WireError.Inval, Cmd.Flush);

        Assert.That((with.Plugin.Count(PluginOp.Flush), without.Plugin.Count(PluginOp.Flush)), Is.EqualTo((1, 0)));
        await plain.ExpectAliveAsync(without.Plugin.Data);
    }

    [Test, Property("Rule", "P22"), Property("Rule", "S212"), Property("Rule", "S219")]
    [Property("Threat", "P22")]
    public async Task P22_S212_S219_Commands_that_were_not_advertised_are_invalid_and_do_nothing()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with
            {
                CanTrim = false,
                CanZero = Support.None,
                CanCache = Support.None,
                CanFlush = false,
                CanFua = Support.None,
            },
        });
        WireClient client = await server.TransmitAsync();
        foreach (ushort command in new[] { Cmd.Trim, Cmd.WriteZeroes, Cmd.Cache, Cmd.BlockStatus })
        {
            await client.ExpectCallAsync(WireError.Inval, command, 0, 512);
        }
        await client.ExpectCallAsync(WireError.Inval, Cmd.WriteZeroes, 0, 512, CmdFlag.FastZero);
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
