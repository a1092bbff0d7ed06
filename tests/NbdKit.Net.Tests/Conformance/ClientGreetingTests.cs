using System.Text;
using NbdKit.Client;
using NbdKit.Tests.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>"Newstyle negotiation" and "Fixed newstyle negotiation", from the client's side.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientGreetingTests : HandshakeTest
{
    private static readonly byte[] Good = new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(3).ToArray();

    private static readonly byte[] Oldstyle =
        new WireBytes().U64(Magic.Nbd).U64(0x00420281861253).U64(1 << 20).U32(1).Zeroes(124).ToArray();

    [Test, Property("Rule", "C001")]
    public async Task Every_bit_of_the_greetings_magic_counts_C001([Range(0, 127)] int bit)
    {
        byte[] greeting = [.. Good];
        greeting[bit / 8] ^= (byte)(1 << (bit % 8));

        await FailAsync(new ScriptedServer { Greeting = greeting }, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C001")]
    public async Task An_oldstyle_server_is_refused_C001()
    {
        var server = new ScriptedServer { Greeting = Oldstyle };

        NbdClientException failure = await FailAsync(server, NbdClientError.Unsupported);

        Assert.That(failure.Message, Does.Contain("oldstyle"));
        Assert.That(server.ClientFlags, Is.Null);
    }

    [Test, Property("Rule", "C001")]
    public async Task What_is_no_NBD_at_all_is_said_to_be_none_C001()
    {
        byte[] http = Encoding.ASCII.GetBytes("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");

        NbdClientException failure =
            await FailAsync(new ScriptedServer { Greeting = http }, NbdClientError.ProtocolViolation);

        Assert.That(failure.Message, Does.Contain("no NBD server"));
    }

    [Test, Property("Rule", "C001")]
    public async Task A_greeting_that_ends_early_is_a_lost_connection_C001([Range(0, 17)] int length)
        => await FailAsync(
            new ScriptedServer { Greeting = Good[..length], EndsAfterGreeting = true }, NbdClientError.ConnectionLost);

    [Test, Property("Rule", "C002"), Property("Rule", "C003")]
    public async Task Unknown_handshake_flags_are_ignored_C002_C003()
    {
        var server = new ScriptedServer { HandshakeFlags = 0xffff };

        ClientSession session = await ConnectAsync(server);

        Assert.That(session.Size, Is.EqualTo(1 << 20));
        Assert.That(server.ClientFlags, Is.EqualTo(3));
    }

    [Property("Rule", "C003")]
    [TestCase(0, 0u)]
    [TestCase(1, 1u)]
    [TestCase(2, 2u)]
    [TestCase(3, 3u)]
    public async Task Only_what_was_offered_is_answered_C003(int offered, uint expected)
    {
        var server = new ScriptedServer { HandshakeFlags = (ushort)offered };
        server.Answer(Opt.ExportName, new WireBytes().U64(512).U16(1).Zeroes((offered & 2) != 0 ? 0 : 124).ToArray());

        await ConnectAsync(server);

        Assert.That(server.ClientFlags, Is.EqualTo(expected));
    }

    [Test, Property("Rule", "C019"), Property("Rule", "C031")]
    public async Task A_server_without_options_gets_one_name_and_no_option_C019_C031([Values] bool noZeroes)
    {
        var server = new ScriptedServer { HandshakeFlags = (ushort)(noZeroes ? 2 : 0) };
        byte[] reply = new WireBytes().U64(12345).U16(3).Zeroes(noZeroes ? 0 : 124).ToArray();
        server.Answer(Opt.ExportName, reply);

        ClientSession session = await ConnectAsync(
            server, new NbdClientOptions { ExportName = "disk", Tls = NbdTlsPolicy.Allow, TlsAuthentication = new() { TargetHost = "x" } });

        Assert.That(server.Trace, Is.EqualTo([Opt.ExportName]));
        Assert.That(Encoding.UTF8.GetString(server.Options[0].Data), Is.EqualTo("disk"));
        Assert.That(session.Size, Is.EqualTo(12345));
        Assert.That((ushort)session.Flags, Is.EqualTo(3));
        Assert.That(session.StructuredReplies || session.ExtendedHeaders || session.IsTls, Is.False);
        Assert.That(session.MetaContexts, Is.Empty);
        // Exactly the reply was received: the next byte is the first of the transmission phase.
        Assert.That(session.BlockSize.IsKnown, Is.False);
    }
}
