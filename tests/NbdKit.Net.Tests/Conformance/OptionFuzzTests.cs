using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Sequences of options, judged against a model of when a server may close.</summary>
public sealed class OptionFuzzTests : WireTest
{
    [Test, Property("Rule", "S029"), Property("Rule", "S026")]
    public async Task S029_S026_The_server_closes_only_where_the_protocol_lets_it_and_says_why()
    {
        const int Seed = 29;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync();
        for (int round = 0; round < 300; round++)
        {
            WireClient client = await server.HaggleAsync();
            NbdDisconnectReason? expected = null;
            int infos = 0;
            for (int step = 0; expected is null && step < 8; step++)
            {
                uint option = (uint)random.Next(0, 13);
                if (option is Opt.Info && ++infos > 4)
                {
                    continue;
                }
                expected = await StepAsync(client, option, random);
            }
            if (expected is null)
            {
                await client.ExpectHagglingAsync();
                await client.FinishAsync();
                expected = NbdDisconnectReason.ClientGone;
            }
            NbdDisconnect end = await client.ExpectGoneAsync();
            Assert.That(end.Reason, Is.EqualTo(expected), $"seed {Seed}, round {round}: {end.Detail}");
        }
    }

    [TestCase(0, NbdDisconnectReason.ClientGone)]
    [TestCase(1, NbdDisconnectReason.ConnectionLost)]
    [TestCase(15, NbdDisconnectReason.ConnectionLost)]
    [TestCase(16, NbdDisconnectReason.ConnectionLost)]
    [TestCase(21, NbdDisconnectReason.ConnectionLost)]
    [Property("Rule", "S029")]
    public async Task S029_A_client_that_leaves_inside_an_option_is_lost_and_between_options_gone(
        int bytes, NbdDisconnectReason reason)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.SendAsync(WireBytes.Option(Opt.Go, WireBytes.InfoRequest([]))[..bytes]);
        await client.FinishAsync();

        await client.ExpectGoneAsync(reason);
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    private static async Task<NbdDisconnectReason?> StepAsync(WireClient client, uint option, Random random)
    {
        bool good = random.Next(2) == 0;
        switch (option)
        {
            case Opt.ExportName when client.IsExtended:
                await client.SendOptionAsync(option);
                return NbdDisconnectReason.ProtocolViolation;
            case Opt.ExportName when good:
                await client.ExportNameAsync();
                // The client's SR flag may be on; only the grammar of the last request counts here.
                await client.SendRequestAsync(Cmd.Disc);
                return NbdDisconnectReason.ClientDone;
            case Opt.ExportName:
                await client.SendOptionAsync(option, "missing"u8);
                return NbdDisconnectReason.ExportUnavailable;
            case Opt.Abort:
                await client.ExpectOptAsync(Rep.Ack, option, good ? [] : [1, 2, 3]);
                return NbdDisconnectReason.ClientDone;
            case Opt.Go when good:
                await client.GoAsync();
                await client.SendRequestAsync(Cmd.Disc);
                return NbdDisconnectReason.ClientDone;
            case Opt.Info or Opt.Go:
                OptionResult result = await client.OptAsync(
                    option, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(good ? "" : "missing"), 0, 1, 2, 3));
                Assert.That(result.Type, Is.EqualTo(good ? Rep.Ack : Rep.Unknown));
                return null;
            default:
                byte[] data = new byte[good ? 0 : random.Next(64)];
                random.NextBytes(data);
                OptionResult other = await client.OptAsync(option, data);
                client.IsExtended |= option == Opt.ExtendedHeaders && other.IsAck;
                return null;
        }
    }
}
