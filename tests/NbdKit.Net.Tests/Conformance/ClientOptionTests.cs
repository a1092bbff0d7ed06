using System.Text;
using NbdKit.Client;
using NbdKit.Tests.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>"Option haggling", from the client's side.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientOptionTests : HandshakeTest
{
    private static readonly uint[] AllInOrder = [Opt.ExtendedHeaders, Opt.StructuredReply, Opt.SetMeta, Opt.Go];

    [Test, Property("Rule", "C004"), Property("Rule", "C005"), Property("Rule", "C010"), Property("Rule", "C013"),
        Property("Rule", "C015"), Property("Rule", "C017")]
    public async Task Options_come_one_by_one_each_once_C004_C005_C010_C013_C015_C017()
    {
        var server = new ScriptedServer();

        ClientSession session = await ConnectAsync(server, new NbdClientOptions { ExportName = "disk" });

        Assert.That(server.Trace, Is.EqualTo(AllInOrder));
        Assert.That(server.Hasty, Is.False, "something came before the answer");
        Assert.That(server.Options[0].Data, Is.Empty);
        Assert.That(server.Options[1].Data, Is.Empty);
        Assert.That(server.Options[2].Data, Is.EqualTo(WireBytes.MetaRequest("disk"u8, "base:allocation")));
        Assert.That(
            server.Options[3].Data,
            Is.EqualTo(WireBytes.InfoRequest("disk"u8, InfoType.BlockSize, InfoType.Name, InfoType.Description)));
        Assert.That(session.MetaContexts, Is.EqualTo(new Dictionary<uint, string> { [7] = "base:allocation" }));
        Assert.That(session.StructuredReplies, Is.True);
        session.Transport.Abort();
        await server.Ended.Soon();
        Assert.That(server.After, Is.Empty);
    }

    [Test, Property("Rule", "C005")]
    public async Task With_extended_headers_structured_replies_are_not_asked_for_C005()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.ExtendedHeaders, ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Ack));

        ClientSession session = await ConnectAsync(server);

        Assert.That(server.Trace, Is.EqualTo([Opt.ExtendedHeaders, Opt.SetMeta, Opt.Go]));
        Assert.That(session.ExtendedHeaders, Is.True);
        Assert.That(session.MetaContexts, Has.Count.EqualTo(1));
    }

    [Test]
    public async Task Nothing_is_asked_for_that_the_options_leave_out()
    {
        var server = new ScriptedServer();

        ClientSession session = await ConnectAsync(
            server, new NbdClientOptions { RequestExtendedHeaders = false, RequestStructuredReplies = false });

        Assert.That(server.Trace, Is.EqualTo([Opt.Go]), "without structured replies there are no meta contexts");
        Assert.That(session.StructuredReplies, Is.False);
    }

    [Test, Property("Rule", "C006")]
    public async Task A_reply_must_have_the_magic_and_the_option_C006(
        [Values(0, 7, 8, 11)] int position, [ValueSource(nameof(AllInOrder))] uint option)
    {
        var server = new ScriptedServer();
        byte[] answer = server.Answers[option]([])!;
        answer[position] ^= 0x10;
        server.Answer(option, answer);

        await FailAsync(server, NbdClientError.ProtocolViolation);
        Assert.That(server.Trace.Last(), Is.EqualTo(option), "nothing is said after that, not even goodbye");
    }

    [Test, Property("Rule", "C006")]
    public async Task A_reply_must_be_of_a_type_that_belongs_to_the_option_C006(
        [Values(0u, Rep.Server, 5u, 0x7fffffffu)] uint type, [ValueSource(nameof(AllInOrder))] uint option)
    {
        var server = new ScriptedServer();
        server.Answer(option, ScriptedServer.Reply(option, type));

        await FailAsync(server, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C006"), Property("Rule", "C023"), Property("Rule", "CVE_2017_2630"), Property("Rule", "CVE_2022_26495")]
    [Property("Threat", "CVE-2017-2630"), Property("Threat", "nbd-client-569070d")]
    public async Task The_length_of_a_reply_is_never_believed_C006_C023_CVE_2017_2630_CVE_2022_26495(
        [Values(Rep.Ack, Rep.Info, Rep.MetaContext, Rep.Invalid, 0x80001234u)] uint type,
        [Values(65_537u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu)] uint length,
        [Values(Opt.SetMeta, Opt.Go)] uint option)
    {
        var server = new ScriptedServer();
        server.Answer(option, new WireBytes().U64(Magic.OptionReply).U32(option).U32(type).U32(length).ToArray());

        // None of the payload is there: whoever waited for it, or made room for it, would not get here.
        await FailAsync(server, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C023")]
    public async Task A_message_of_the_server_is_shown_without_what_a_terminal_would_obey_C023()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Policy, "no\u001b[2J\r\nway \u202e here\0"));

        NbdClientException failure = await FailAsync(server, NbdClientError.Refused);

        Assert.That(failure.Message, Does.Contain("way"));
        Assert.That(failure.Message.Any(c => char.IsControl(c) || c == '\u202e'), Is.False, failure.Message);
    }

    [Test, Property("Rule", "C023")]
    public async Task A_message_may_have_4096_bytes_and_need_not_be_text_C023()
    {
        var server = new ScriptedServer();
        byte[] message = [.. Enumerable.Repeat((byte)0xff, 4096)];
        server.Answer(Opt.ExtendedHeaders, ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Unsup, message));

        ClientSession session = await ConnectAsync(server);

        Assert.That(session.StructuredReplies, Is.True);
        var longer = new ScriptedServer();
        longer.Answer(Opt.ExtendedHeaders, ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Unsup, [.. message, 1]));
        await FailAsync(longer, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C007"), Property("Rule", "C009")]
    public async Task A_client_that_leaves_says_so_C007_C009([Values] bool answered)
    {
        var server = new ScriptedServer();
        if (!answered)
        {
            server.Answer(Opt.Abort, _ => null);
        }
        NbdHandshake handshake = await BeginAsync(server);

        await handshake.DisposeAsync().Soon();
        await handshake.DisposeAsync().Soon();

        await server.Ended.Soon();
        Assert.That(server.Trace, Is.EqualTo([Opt.ExtendedHeaders, Opt.StructuredReply, Opt.Abort]));
        Assert.That(server.Options[^1].Data, Is.Empty);
        Assert.ThrowsAsync<ObjectDisposedException>(() => handshake.ListAsync());
    }

    [Test, Property("Rule", "C009")]
    public async Task A_server_that_does_not_answer_the_goodbye_holds_nobody_up_C009()
    {
        var time = new FakeTimeProvider();
        var server = new ScriptedServer();
        server.Answer(Opt.Abort, []);
        NbdHandshake handshake = await BeginAsync(server, new NbdClientOptions { TimeProvider = time });

        Task leaving = handshake.AbortAsync();

        await time.AdvanceUntilAsync(leaving);
        await leaving;
    }

    [Property("Rule", "C007")]
    [TestCase(Rep.Unsup, NbdClientError.Unsupported)]
    [TestCase(Rep.Policy, NbdClientError.Refused)]
    [TestCase(Rep.Invalid, NbdClientError.Refused)]
    [TestCase(Rep.Platform, NbdClientError.Refused)]
    [TestCase(Rep.TlsRequired, NbdClientError.TlsRequired)]
    [TestCase(Rep.Unknown, NbdClientError.ExportUnknown)]
    [TestCase(Rep.BlockSizeRequired, NbdClientError.Unsupported)]
    [TestCase(Rep.TooBig, NbdClientError.Refused)]
    [TestCase(0x80009999u, NbdClientError.Refused)]
    public async Task A_refused_export_ends_in_a_goodbye_C007(uint error, NbdClientError expected)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.ExtendedHeaders, ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Ack));
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, error, "because"));

        NbdClientException failure = await FailAsync(server, expected);

        Assert.That(failure.Message, Does.Contain("because"));
        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([Opt.Go, Opt.Abort]));
    }

    [Test, Property("Rule", "C008")]
    public async Task A_server_that_shuts_down_is_left_at_once_C008([ValueSource(nameof(AllInOrder))] uint option)
    {
        var server = new ScriptedServer();
        server.Answer(option, ScriptedServer.Error(option, Rep.Shutdown));

        await FailAsync(server, NbdClientError.ServerShutdown);

        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([option, Opt.Abort]));
    }

    [Test, Property("Rule", "C008")]
    public async Task A_server_that_shuts_down_is_left_in_option_mode_too_C008()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.List, ScriptedServer.Error(Opt.List, Rep.Shutdown));
        await using NbdHandshake handshake = await BeginAsync(server);

        Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync());

        await server.Ended.Soon();
        Assert.That(server.Trace.Last(), Is.EqualTo(Opt.Abort));
        NbdClientException again = Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync())!;
        Assert.That(again.Error, Is.EqualTo(NbdClientError.ServerShutdown));
    }

    [Test, Property("Rule", "C036")]
    public async Task Any_option_may_be_answered_with_TLS_required_C036([ValueSource(nameof(AllInOrder))] uint option)
    {
        var server = new ScriptedServer();
        server.Answer(option, ScriptedServer.Error(option, Rep.TlsRequired));

        NbdClientException failure = await FailAsync(server, NbdClientError.TlsRequired);

        Assert.That(failure.Message, option == Opt.Go ? Does.Contain("no such export") : Does.EndWith("requires TLS"));
        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([option, Opt.Abort]));
    }

    [Test, Property("Rule", "C018")]
    public async Task Nothing_is_carried_over_to_the_next_connection_C018()
    {
        var options = new NbdClientOptions { ExportName = "disk" };
        for (int i = 0; i < 2; i++)
        {
            var server = new ScriptedServer();
            await ConnectAsync(server, options);
            Assert.That(server.Trace, Is.EqualTo(AllInOrder));
        }
    }

    [Test, Property("Rule", "C020")]
    public void Names_that_must_not_travel_are_refused_before_a_connection_is_touched_C020()
    {
        foreach (string bad in new[] { "a\0b", "\ud800", new string('x', 4097), new string('é', 2049) })
        {
            var server = new ScriptedServer();
            Assert.ThrowsAsync<ArgumentException>(() => ConnectAsync(server, new NbdClientOptions { ExportName = bad }));
            Assert.ThrowsAsync<ArgumentException>(() => ConnectAsync(server, new NbdClientOptions { MetaContexts = ["a", bad] }));
            Assert.That(server.ClientFlags, Is.Null);
        }
    }

    [Test, Property("Rule", "C020")]
    public async Task The_longest_name_travels_C020()
    {
        string name = new('é', 2048);
        var server = new ScriptedServer();

        await ConnectAsync(server, new NbdClientOptions { ExportName = name });

        Assert.That(
            server.Options[^1].Data,
            Is.EqualTo(WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name), InfoType.BlockSize, InfoType.Name, InfoType.Description)));
    }
}
