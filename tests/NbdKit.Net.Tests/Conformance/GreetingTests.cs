using System.Net;
using System.Net.Sockets;
using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>The greeting and the client's answer to it ("Newstyle negotiation", "Handshake flags", "Client flags").</summary>
public sealed class GreetingTests : WireTest
{
    [Test, Property("Rule", "S006"), Property("Rule", "S007"), Property("Rule", "S008"), Property("Rule", "S014")]
    public async Task S006_S007_S008_S014_The_greeting_is_newstyle_and_comes_before_any_client_byte()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = server.Connect();

        byte[] greeting = await client.ReadAsync(18);

        Assert.That(
            greeting,
            Is.EqualTo(new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(3).ToArray()),
            "both magics, then FIXED_NEWSTYLE and NO_ZEROES and no other flag");
    }

    [TestCase(true, true, 3)]
    [TestCase(true, false, 1)]
    [TestCase(false, true, 2)]
    [TestCase(false, false, 0)]
    [Property("Rule", "S007"), Property("Rule", "S008")]
    public async Task S007_S008_The_handshake_flags_are_those_that_the_options_offer(
        bool fixedNewstyle, bool noZeroes, int flags)
    {
        ServerFixture server = await ServeAsync(options: Offering(fixedNewstyle, noZeroes));

        Assert.That(await server.Connect().ReadGreetingAsync(), Is.EqualTo(flags));
    }

    [TestCase(0u, true)]
    [TestCase(1u, true)]
    [TestCase(2u, false)]
    [TestCase(3u, false)]
    [Property("Rule", "S009"), Property("Rule", "S035"), Property("Rule", "S036")]
    public async Task S009_S035_S036_The_124_zeroes_follow_EXPORT_NAME_unless_the_client_agreed_to_leave_them_out(
        uint clientFlags, bool zeroes)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync(clientFlags);

        await client.ExportNameAsync(zeroes: zeroes);

        Assert.That(client.Size, Is.EqualTo((ulong)server.Plugin.Data.Length));
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S010")]
    public async Task S010_Any_client_flag_that_the_protocol_does_not_define_ends_the_connection()
    {
        ServerFixture server = await ServeAsync();
        IEnumerable<uint> unknown = Enumerable.Range(2, 30).Select(bit => 3u | 1u << bit).Append(uint.MaxValue).Append(4u);
        foreach (uint flags in unknown)
        {
            WireClient client = await server.HaggleAsync(flags);
            await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [TestCase(true, false, 2u)]
    [TestCase(true, false, 3u)]
    [TestCase(false, true, 1u)]
    [TestCase(false, true, 3u)]
    [TestCase(false, false, 1u)]
    [Property("Rule", "S011")]
    public async Task S011_A_client_flag_that_answers_nothing_we_offered_ends_the_connection(
        bool fixedNewstyle, bool noZeroes, uint clientFlags)
    {
        ServerFixture server = await ServeAsync(options: Offering(fixedNewstyle, noZeroes));
        WireClient client = await server.HaggleAsync(clientFlags);

        await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
    }

    [TestCase(0u)]
    [TestCase(2u)]
    [Property("Rule", "S012")]
    public async Task S012_A_client_without_fixed_newstyle_gets_errors_for_options_until_it_names_an_export(uint clientFlags)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync(clientFlags);

        await client.ExpectOptAsync(Rep.Invalid, Opt.List);
        await client.ExpectOptAsync(Rep.Invalid, Opt.Go, WireBytes.InfoRequest("with payload"u8));
        await client.ExpectOptAsync(Rep.Invalid, Opt.List, new byte[65_536]);
        await client.ExportNameAsync(zeroes: clientFlags == 0);

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(0u)]
    [TestCase(2u)]
    [Property("Rule", "S013")]
    public async Task S013_Without_fixed_newstyle_there_is_no_TLS(uint clientFlags)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync(clientFlags);

        await client.ExpectOptAsync(Rep.Invalid, Opt.StartTls);
        await client.ExportNameAsync(zeroes: clientFlags == 0);

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S013")]
    public async Task S013_A_server_that_does_not_offer_fixed_newstyle_has_no_TLS()
    {
        ServerFixture server = await ServeAsync(options: Offering(false, true));
        WireClient client = await server.HaggleAsync(WireClient.NoZeroes);

        await client.ExpectOptAsync(Rep.Invalid, Opt.StartTls);
        await client.ExportNameAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S005")]
    public async Task S005_Nagle_is_off_on_a_socket_that_the_server_is_given()
    {
        ServerFixture server = await ServeAsync();
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await peer.ConnectAsync(listener.LocalEndPoint!);
        Socket accepted = await listener.AcceptAsync();
        Assert.That(accepted.NoDelay, Is.False);

        Task<NbdDisconnect> serving = server.Server.ServeAsync(accepted);
        byte[] greeting = new byte[18];
        await using var stream = new NetworkStream(peer);
        await stream.ReadExactlyAsync(greeting).AsTask().WaitAsync(WireClient.Deadline);

        Assert.That(accepted.NoDelay, Is.True);
        peer.Shutdown(SocketShutdown.Both);
        await serving.WaitAsync(WireClient.Deadline);
    }

    [TestCase("GET / HTTP/1.1\r\nHost: disk\r\n\r\n")]
    [TestCase("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")]
    [TestCase("\u0016\u0003\u0001\u0002\0\u0001\0\u0001\u00fc\u0003\u0003")]
    [TestCase("NBDMAGIC\0\0B\u0002\u0081\u0086\u0012S")]
    [Property("Rule", "P10")]
    [Property("Threat", "P10")]
    public async Task P10_What_is_not_NBD_is_cut_off_without_an_echo(string bytes)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = server.Connect();
        await client.ReadGreetingAsync();

        await client.SendAsync(Encoding.Latin1.GetBytes(bytes));

        await client.ExpectGoneAsync(NbdDisconnectReason.ProtocolViolation);
        Assert.That(
            server.Log.Entries.Any(entry => entry.Text.Contains(bytes[..4], StringComparison.Ordinal)), Is.False);
    }

    [Test, Property("Rule", "P10")]
    [Property("Threat", "P10")]
    public async Task P10_Random_bytes_open_nothing_and_leave_no_fault()
    {
        const int Seed = 4711;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync();
        for (int i = 0; i < 200; i++)
        {
            WireClient client = server.Connect();
            byte[] bytes = new byte[random.Next(1, 300)];
            random.NextBytes(bytes);
            await client.SendAsync(bytes);
            await client.FinishAsync();
            byte[] answer = await client.ReadToEndAsync();
            Assert.That(answer, Has.Length.EqualTo(18), $"seed {Seed}, round {i}: only the greeting");
            await client.ExpectEndAsync();
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    private static NbdServerOptions Offering(bool fixedNewstyle, bool noZeroes)
        => new() { OfferFixedNewstyle = fixedNewstyle, OfferNoZeroes = noZeroes };
}
