using Microsoft.Extensions.Logging;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Option haggling in general ("Fixed newstyle negotiation", "Termination during option haggling").</summary>
public sealed class OptionTests : WireTest
{
    private static readonly uint[] Unknown = [0, 4, 12, 13, 0x7fffffff, 0xffffffff];

    [Test, Property("Rule", "S020"), Property("Rule", "P11")]
    [Property("Threat", "P11")]
    public async Task S020_P11_An_option_with_a_wrong_magic_ends_the_connection_without_a_reply()
    {
        ServerFixture server = await ServeAsync();
        for (int bit = 0; bit < 64; bit += 7)
        {
            WireClient client = await server.HaggleAsync();
            await client.SendAsync(new WireBytes().U64(Magic.IHaveOpt ^ 1ul << bit).U32(Opt.Go).U32(6).Zeroes(6).ToArray());
            await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [TestCaseSource(nameof(Unknown))]
    [Property("Rule", "S021"), Property("Rule", "S022"), Property("Rule", "S023"), Property("Rule", "S024")]
    [Property("Rule", "S054")]
    public async Task S021_S022_S023_S024_S054_An_unknown_option_is_unsupported_and_the_next_message_still_parses(uint option)
    {
        ServerFixture server = await ServeAsync();
        foreach (int length in new[] { 0, 1, 4096, 65_536 })
        {
            WireClient client = await server.HaggleAsync();
            await client.ExpectOptAsync(Rep.Unsup, option, new byte[length]);
            Assert.That((await client.OptAsync(Opt.List)).IsAck, $"LIST after {length} bytes");
        }
    }

    [Test, Property("Rule", "S022"), Property("Rule", "S023"), Property("Rule", "S024")]
    public async Task S022_S023_S024_Each_option_gets_one_final_reply_with_its_own_number_and_nothing_after_it()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        var random = new Random(1);
        uint[] options = [0, 3, 3, 4, 5, 6, 8, 8, 9, 10, 11, 12, 6, 9, 10, uint.MaxValue];
        foreach (uint option in options)
        {
            byte[] data = new byte[random.Next(40)];
            // The next option's replies would not parse if one byte more had followed these.
            OptionResult result = await client.OptAsync(option, data);
            Assert.That(result.Type is Rep.Ack or >= Rep.Unsup and <= Rep.ExtendedHeadersRequired, $"{result.Final}");
        }
        await client.GoAsync();
        await client.ExpectAliveAsync(null);
    }

    [Test, Property("Rule", "S025")]
    public async Task S025_Structured_replies_may_be_asked_for_twice_and_stay_on()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();

        OptionResult second = await client.OptAsync(Opt.StructuredReply);

        Assert.That(second.Type, Is.EqualTo(Rep.Ack).Or.EqualTo(Rep.Invalid));
        await client.GoAsync();
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S026"), Property("Rule", "S105")]
    public async Task S026_S105_A_client_that_fails_often_is_answered_each_time_and_may_succeed_in_the_end()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 30; i++)
        {
            OptionResult failed = await client.TryGoAsync($"missing {i}");
            Assert.That(failed.Replies, Has.Count.EqualTo(1));
            Assert.That(failed.Type, Is.EqualTo(Rep.Unknown));
        }
        await client.GoAsync();
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(Opt.Info)]
    [TestCase(Opt.SetMeta)]
    [TestCase(0x77u)]
    [Property("Rule", "S027"), Property("Rule", "P04")]
    [Property("Threat", "P04")]
    public async Task S027_P04_Endless_options_exceed_a_budget_and_end_the_connection_with_a_log_line(uint option)
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 10 });
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 10; i++)
        {
            Assert.That((await client.OptAsync(option, [0, 0])).Final.IsError);
        }

        await client.SendOptionAsync(option, [0, 0]);

        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That(server.Log.Entries.Select(entry => entry.Level), Has.Some.GreaterThanOrEqualTo(LogLevel.Information));
    }

    [Test, Property("Rule", "S027"), Property("Rule", "P04"), Property("Rule", "S051")]
    [Property("Threat", "P04")]
    public async Task S027_P04_S051_Each_listed_export_adds_room_for_asking_about_it()
    {
        TestExport[] exports = [.. Enumerable.Range(0, 40).Select(i => new TestExport($"disk{i}", 512))];
        ServerFixture server = await ServeAsync(new TestPlugin(exports), new NbdServerOptions { MaxOptions = 2 });
        WireClient client = await server.HaggleAsync();
        OptionResult list = await client.OptAsync(Opt.List);

        foreach (OptionReply listed in list.Before)
        {
            Assert.That((await client.InfoAsync(listed.ServerName)).IsAck, listed.ServerName);
        }

        Assert.That(list.Before, Has.Count.EqualTo(40));
        await client.GoAsync("disk7");
    }

    [Test, Property("Rule", "S031"), Property("Rule", "S085"), Property("Rule", "S115")]
    public async Task S031_S085_S115_Inner_lengths_that_leave_the_option_are_invalid_and_the_next_option_parses()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint option in new[] { Opt.Info, Opt.Go })
        {
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(1).U16(0).ToArray());
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(5).Raw("disk"u8).U16(0).ToArray());
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(0).U16(1).ToArray());
        }
        foreach (uint option in new[] { Opt.ListMeta, Opt.SetMeta })
        {
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(1).U32(0).ToArray());
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(0).U32(1).ToArray());
            await client.ExpectOptAsync(
                Rep.Invalid, option, new WireBytes().U32(0).U32(1).U32(6).Raw("base:"u8).ToArray());
        }
        await client.ExpectHagglingAsync();
    }

    [TestCase(Opt.Info)]
    [TestCase(Opt.Go)]
    [TestCase(Opt.ListMeta)]
    [TestCase(Opt.SetMeta)]
    [Property("Rule", "S031"), Property("Rule", "P01")]
    [Property("Threat", "CVE-2022-26496")]
    public async Task S031_P01_A_bad_inner_length_in_a_long_option_is_invalid_and_all_of_it_is_skipped(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        uint[] lengths = [4097, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
        foreach (int outer in new[] { 1025, 65_536, 128 << 10 })
        {
            foreach (uint inner in lengths)
            {
                byte[] data = new WireBytes().U32(inner).Zeroes(outer - 4).ToArray();
                await client.ExpectOptAsync(Rep.Invalid, option, data);
            }
        }
        await client.GoAsync();
    }

    [TestCase(Opt.List)]
    [TestCase(Opt.Info)]
    [TestCase(Opt.Go)]
    [TestCase(Opt.SetMeta)]
    [TestCase(0x77u)]
    [Property("Rule", "S032"), Property("Rule", "P01")]
    [Property("Threat", "P01")]
    public async Task S032_P01_An_option_over_the_cap_is_skipped_and_too_big(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        foreach (int length in new[] { (128 << 10) + 1, 1 << 20 })
        {
            await client.ExpectOptAsync(Rep.TooBig, option, new byte[length]);
        }
        await client.GoAsync();
    }

    [TestCase((1u << 20) + 1)]
    [TestCase(0x7fffffffu)]
    [TestCase(0x80000000u)]
    [TestCase(0xffffffffu)]
    [Property("Rule", "S032"), Property("Rule", "P01")]
    [Property("Threat", "P01"), Property("Threat", "CVE-2017-15119")]
    public async Task S032_P01_An_option_far_over_the_cap_ends_the_connection_at_once(uint length)
    {
        ServerFixture server = await ServeAsync();
        foreach (uint option in new[] { Opt.ExportName, Opt.Abort, Opt.List, Opt.Go, Opt.SetMeta, 0x77u })
        {
            WireClient client = await server.HaggleAsync();
            await client.SendAsync(new WireBytes().U64(Magic.IHaveOpt).U32(option).U32(length).ToArray());
            await client.ExpectGoneAsync();
        }
    }

    [Test, Property("Rule", "P01")]
    [Property("Threat", "P01"), Property("Threat", "nbdkit-option-memory")]
    public async Task P01_A_length_field_alone_costs_no_memory()
    {
        ServerFixture server = await ServeAsync();
        var clients = new List<WireClient>();
        for (int i = 0; i < 50; i++)
        {
            clients.Add(await server.HaggleAsync());
        }
        long before = GC.GetTotalAllocatedBytes(precise: true);

        foreach (WireClient client in clients)
        {
            await client.SendAsync(new WireBytes().U64(Magic.IHaveOpt).U32(Opt.SetMeta).U32(128 << 10).ToArray());
        }
        foreach (WireClient client in clients)
        {
            await client.FinishAsync();
            await client.ExpectGoneAsync(NbdDisconnectReason.ConnectionLost);
        }

        long perClient = (GC.GetTotalAllocatedBytes(precise: true) - before) / clients.Count;
        Assert.That(perClient, Is.LessThan(64 << 10), "bytes allocated for each client");
    }
}
