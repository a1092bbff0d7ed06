using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Offsets and lengths at every edge, for every command, in every form of request.</summary>
public sealed class RangeTableTests : WireTest
{
    private const int MaxPayload = 1 << 20;

    // Commands are 16 bits; every one that nobody knows is tried.
    private const int FirstUnknown = 8;

    private static readonly uint[] Lengths = [1, 2, 512, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff];

    private static readonly ulong[] LongLengths =
    [
        1ul << 32, (1ul << 32) + 512, (1ul << 63) - 1, 1ul << 63, ulong.MaxValue - 1, ulong.MaxValue,
    ];

    [Test, Property("Threat", "P17"), Property("Threat", "P18"), Property("Threat", "N07")]
    public async Task No_edge_of_offset_or_length_reaches_the_plugin([Values("simple", "structured", "extended")] string form)
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxPayload = MaxPayload });
        WireClient client = await server.TransmitAsync(meta: form == "structured", extended: form == "extended");
        ulong size = client.Size;
        ulong[] offsets =
        [
            size, size + 1, 1ul << 31, uint.MaxValue, 1ul << 32, (1ul << 63) - 512, (1ul << 63) - 1, 1ul << 63,
            (1ul << 63) + 1, ulong.MaxValue - 511, ulong.MaxValue - 1, ulong.MaxValue,
        ];
        ulong[] lengths = [.. Lengths.Select(length => (ulong)length), .. form == "extended" ? LongLengths : []];
        foreach (ushort command in Cmd.Ranged)
        {
            bool grows = command is Cmd.Write or Cmd.WriteZeroes;
            bool isPossible = command != Cmd.BlockStatus || form == "structured";
            foreach (ulong offset in offsets)
            {
                foreach (ulong length in lengths.Where(length => command != Cmd.Write || length <= 512))
                {
                    byte[]? payload = command == Cmd.Write ? new byte[length] : null;
                    ushort flags = payload is not null && form == "extended" ? CmdFlag.PayloadLength : CmdFlag.None;
                    await client.ExpectCallAsync(
                        grows && isPossible ? WireError.NoSpc : WireError.Inval, command, offset, length, flags, payload);
                }
            }
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Threat", "P19")]
    public async Task No_bytes_at_any_place_do_nothing_and_end_nothing([Values("simple", "structured", "extended")] string form)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(meta: form == "structured", extended: form == "extended");
        foreach (ushort command in Cmd.Ranged)
        {
            byte[]? payload = command == Cmd.Write ? [] : null;
            ushort flags = payload is not null && form == "extended" ? CmdFlag.PayloadLength : CmdFlag.None;
            foreach (ulong offset in new ulong[] { 0, client.Size - 1, client.Size, client.Size + 1, 1ul << 63, ulong.MaxValue })
            {
                WireReply reply = await client.CallAsync(command, offset, 0, flags, payload);
                uint refusal = command is Cmd.Write or Cmd.WriteZeroes ? WireError.NoSpc : WireError.Inval;
                Assert.That(
                    reply.Error,
                    Is.EqualTo(command == Cmd.BlockStatus ? WireError.Inval : offset <= client.Size ? WireError.Ok : refusal),
                    $"{reply.Call}");
                Assert.That(reply.Data, Is.Empty);
                Assert.That(
                    reply.Chunks.Select(chunk => chunk.Type), Is.All.EqualTo(ChunkType.None).Or.All.EqualTo(ChunkType.Error));
            }
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Threat", "P22")]
    public async Task Each_of_65_528_unknown_commands_is_invalid_and_does_nothing()
    {
        ServerFixture server = await ServeAsync(new TestExport(), new NbdServerOptions { ReadOnly = true });
        WireClient client = await server.TransmitAsync();
        for (int command = FirstUnknown; command <= ushort.MaxValue; command++)
        {
            await client.ExpectCallAsync(WireError.Inval, (ushort)command, 0, 512);
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Threat", "P23")]
    public async Task A_block_status_counts_only_contexts_that_were_selected_for_this_export()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a"), new TestExport("b")));
        WireClient none = await server.TransmitAsync("a");
        await none.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        WireClient other = await server.HaggleAsync();
        await other.StructuredAsync();
        await other.SetMetaAsync("a", "base:allocation");
        await other.GoAsync("b");
        await other.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        WireClient same = await server.HaggleAsync();
        await same.StructuredAsync();
        await same.SetMetaAsync("a", "base:allocation");
        await same.GoAsync("a");
        await same.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
        await none.ExpectAliveAsync(null);
        await other.ExpectAliveAsync(null);
    }

    [Test, Property("Threat", "P21")]
    public async Task With_extended_headers_every_flag_is_documented_for_its_command_or_invalid()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(extended: true);
        foreach (ushort command in new ushort[] { 0, 1, 3, 4, 5, 6, 7, 8, 9, 255 })
        {
            for (int bit = 0; bit < 16; bit++)
            {
                ushort flag = (ushort)(1 << bit);
                if (flag == CmdFlag.PayloadLength)
                {
                    // It changes the length of the message; see the tests of payloads.
                    continue;
                }
                bool allowed = command < Cmd.BlockStatus && flag switch
                {
                    CmdFlag.Fua => true,
                    CmdFlag.NoHole or CmdFlag.FastZero => command == Cmd.WriteZeroes,
                    CmdFlag.Df => command == Cmd.Read,
                    _ => false,
                };
                bool writes = command == Cmd.Write;
                WireReply reply = await client.CallAsync(
                    command, 0, command == Cmd.Flush ? 0u : 512u, (ushort)(flag | (writes ? CmdFlag.PayloadLength : 0)),
                    writes ? new byte[512] : null);
                Assert.That(reply.Error, Is.EqualTo(allowed ? WireError.Ok : WireError.Inval), $"{reply.Call}");
            }
        }
        await client.ExpectAliveAsync(null);
    }

    [Test, Property("Threat", "CVE-2005-3534"), Property("Threat", "CVE-2011-0530"), Property("Threat", "P16")]
    public async Task Payloads_around_the_largest_are_right_or_refused([Values] bool extended)
    {
        ServerFixture server = await ServeAsync(
            new TestExport(size: 2 * MaxPayload), new NbdServerOptions { MaxPayload = MaxPayload });
        ushort flags = extended ? CmdFlag.PayloadLength : CmdFlag.None;
        WireClient client = await server.TransmitAsync(extended: extended);
        foreach (int length in new[] { MaxPayload - 1, MaxPayload })
        {
            byte[] data = TestExport.Pattern(length);
            Array.Reverse(data);
            await client.WriteDataAsync(1, data);
            Assert.That((await client.ReadDataAsync(1, (uint)length)).AsSpan().SequenceEqual(data));
        }
        foreach (uint length in new uint[] { MaxPayload + 1, 0x7fffffff, 0x80000000, uint.MaxValue })
        {
            await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, length);
            WireClient writer = await server.TransmitAsync(extended: extended);
            await writer.SendRequestAsync(Cmd.Write, 0, length, flags);
            await writer.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        }
        Assert.That(server.Plugin.Calls, Has.All.Property(nameof(PluginCall.Length)).LessThanOrEqualTo(MaxPayload));
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Threat", "P16")]
    public async Task A_refused_extended_write_is_consumed_and_never_read_as_requests()
    {
        ServerFixture server = await ServeAsync(new TestExport(), new NbdServerOptions { ReadOnly = true });
        WireClient client = await server.TransmitAsync(extended: true);
        byte[] trap = [.. Enumerable.Repeat(WireBytes.ExtendedRequest(Cmd.Disc, 2, 0, 0), 4000).SelectMany(bytes => bytes)];
        foreach (ulong offset in new ulong[] { 0, client.Size, ulong.MaxValue })
        {
            WireReply reply = await client.CallAsync(Cmd.Write, offset, (ulong)trap.Length, CmdFlag.PayloadLength, trap);
            Assert.That(reply.Error, Is.EqualTo(WireError.Perm));
        }
        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
