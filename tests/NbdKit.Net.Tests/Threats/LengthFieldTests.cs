using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Length fields of options that claim what they like.</summary>
public sealed class LengthFieldTests : WireTest
{
    private const uint Limit = 4096;

    private static readonly uint[] Claims =
    [
        1, Limit - 1, Limit, Limit + 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
    ];

    [Test, Property("Threat", "CVE-2022-26495"), Property("Threat", "CVE-2022-26496")]
    public async Task Inner_lengths_that_leave_the_option_are_invalid_and_the_next_option_parses(
        [Values(16, 1025, 65_536, 128 << 10)] int outer)
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 1000 });
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        long before = GC.GetTotalAllocatedBytes();
        int sent = 0;
        foreach (uint claim in Claims)
        {
            // The name, the count of queries, the length of a query, and the count of information requests.
            List<(uint Option, WireBytes Data)> cases =
            [
                (Opt.Info, new WireBytes().U32(claim)), (Opt.Go, new WireBytes().U32(claim)),
                (Opt.ListMeta, new WireBytes().U32(claim)), (Opt.SetMeta, new WireBytes().U32(claim)),
                (Opt.ListMeta, new WireBytes().U32(0).U32(claim)), (Opt.SetMeta, new WireBytes().U32(0).U32(claim)),
                (Opt.ListMeta, new WireBytes().U32(0).U32(1).U32(claim)), (Opt.SetMeta, new WireBytes().U32(0).U32(1).U32(claim)),
                (Opt.Info, new WireBytes().U32(0).U16((ushort)claim)), (Opt.Go, new WireBytes().U32(0).U16((ushort)claim)),
            ];
            foreach ((uint option, WireBytes data) in cases)
            {
                int rest = outer - data.ToArray().Length;
                // An odd byte at the end leaves no claim fulfilled by chance; 0x7f is in no name's way.
                byte[] bytes = data.Raw([.. Enumerable.Repeat((byte)0x7f, rest | 1)]).ToArray();
                if (bytes.Length > 128 << 10)
                {
                    bytes = bytes[..((128 << 10) - 1)];
                }
                OptionResult result = await client.OptAsync(option, bytes);
                Assert.That(result.Type, Is.EqualTo(Rep.Invalid).Or.EqualTo(Rep.TooBig), $"{option}, {claim} in {bytes.Length}");
                Assert.That(result.Replies, Has.Count.EqualTo(1));
                sent += bytes.Length;
                await client.ExpectHagglingAsync();
            }
        }
        Assert.That(GC.GetTotalAllocatedBytes() - before, Is.LessThan((100L << 20) + (20L * sent)), "nothing was allocated for a claim");
        Assert.That(server.Plugin.Opened, Is.Zero);
        await client.GoAsync();
    }

    [Test, Property("Threat", "CVE-2022-26496")]
    public async Task A_bad_inner_length_in_an_option_that_is_skipped_leaves_nothing_behind()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 1000 });
        WireClient client = await server.HaggleAsync();
        foreach (uint option in new[] { Opt.Info, Opt.Go, Opt.ListMeta, Opt.SetMeta })
        {
            OptionResult result = await client.OptAsync(option, new WireBytes().U32(uint.MaxValue).Zeroes((1 << 20) - 4).ToArray());
            Assert.That(result.Type, Is.EqualTo(Rep.Invalid).Or.EqualTo(Rep.TooBig));
            await client.ExpectHagglingAsync();
        }
        await client.GoAsync();
    }

    [Test, Property("Threat", "CVE-2022-26495"), Property("Threat", "CVE-2017-15119")]
    public async Task The_length_of_the_option_itself_costs_at_most_what_may_be_skipped()
    {
        ServerFixture server = await ServeAsync();
        WireClient bystander = await server.TransmitAsync();
        foreach (uint length in new uint[] { (1u << 20) + 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff })
        {
            foreach (uint option in new[] { Opt.ExportName, Opt.List, Opt.Info, Opt.Go, Opt.SetMeta, 0x77u })
            {
                WireClient client = await server.HaggleAsync();
                await client.SendAsync(new WireBytes().U64(Magic.IHaveOpt).U32(option).U32(length).Zeroes(4096).ToArray());
                await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
            }
            await bystander.ExpectAliveAsync(server.Plugin.Data);
        }
    }

    [Test, Property("Threat", "CVE-2017-15118"), Property("Threat", "CVE-2020-10761"), Property("Threat", "nbd-server-575f822")]
    public async Task Names_up_to_4096_bytes_are_unknown_and_longer_ones_invalid()
    {
        // Questions about unknown exports are opens that fail: as many as are asked here.
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOpensInHandshake = 14 });
        WireClient client = await server.HaggleAsync();
        foreach (int length in new[] { 255, 256, 257, 1024, 4095, 4096, 4097 })
        {
            string wide = string.Concat(Enumerable.Repeat("\U0001F4BE", length / 4)) + new string('n', length % 4);
            foreach (string name in new[] { new string('n', length), wide })
            {
                foreach (uint option in new[] { Opt.Info, Opt.Go })
                {
                    OptionReply reply = await client.ExpectOptAsync(
                        length <= Limit ? Rep.Unknown : Rep.Invalid, option, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name)));
                    Assert.That(reply.Data.Length, Is.LessThanOrEqualTo(4096));
                    // Throws if a code point was cut.
                    _ = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(reply.Data);
                }
            }
        }
        await client.GoAsync();
    }
}
