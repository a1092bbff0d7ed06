using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Client;
using NbdKit.Tests.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>"TLS support", from the client's side.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientTlsTests : HandshakeTest
{
    private static readonly byte[] Ack = ScriptedServer.Reply(Opt.StartTls, Rep.Ack);

    private static NbdClientOptions Options(NbdTlsPolicy policy, string? host = "nbd.example") => new()
    {
        Tls = policy,
        TlsAuthentication = ServerCertificates.Trusting(host),
    };

    private static ScriptedServer Encrypting(
        X509Certificate2? certificate = null, SslProtocols protocols = SslProtocols.None, bool clientCertificate = false)
    {
        var server = new ScriptedServer
        {
            Tls = async stream =>
            {
                var tls = new SslStream(stream);
                try
                {
                    await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions
                    {
                        ServerCertificate = certificate ?? ServerCertificates.Good,
                        EnabledSslProtocols = protocols,
                        ClientCertificateRequired = clientCertificate,
                        RemoteCertificateValidationCallback = (_, shown, _, _) => !clientCertificate || shown is not null,
                    });
                    return tls;
                }
                catch (Exception e) when (e is AuthenticationException or IOException)
                {
                    await tls.DisposeAsync();
                    return null;
                }
            },
        };
        server.Answer(Opt.StartTls, Ack);
        return server;
    }

    [Property("Rule", "C030")]
    [TestCase(NbdTlsPolicy.Off, true)]
    [TestCase(NbdTlsPolicy.Allow, true)]
    [TestCase(NbdTlsPolicy.Require, false)]
    public async Task A_server_without_TLS_C030(NbdTlsPolicy policy, bool connects)
    {
        var server = new ScriptedServer();

        if (connects)
        {
            ClientSession session = await ConnectAsync(server, Options(policy));
            Assert.That(session.IsTls, Is.False);
            Assert.That(server.Trace.Contains(Opt.StartTls), Is.EqualTo(policy == NbdTlsPolicy.Allow));
        }
        else
        {
            await FailAsync(server, NbdClientError.TlsUnavailable, Options(policy));
            Assert.That(server.Trace, Is.EqualTo([Opt.StartTls, Opt.Abort]));
        }
    }

    [Property("Rule", "C030")]
    [TestCase(NbdTlsPolicy.Off, false)]
    [TestCase(NbdTlsPolicy.Allow, true)]
    [TestCase(NbdTlsPolicy.Require, true)]
    public async Task A_server_that_requires_TLS_C030(NbdTlsPolicy policy, bool connects)
    {
        ScriptedServer server = Encrypting();
        bool upgraded = false;
        server.Answer(Opt.StartTls, _ =>
        {
            upgraded = true;
            return Ack;
        });
        foreach (uint option in new[] { Opt.ExtendedHeaders, Opt.StructuredReply, Opt.SetMeta, Opt.Go })
        {
            Func<byte[], byte[]?> inside = server.Answers[option];
            server.Answer(option, data => upgraded ? inside(data) : ScriptedServer.Error(option, Rep.TlsRequired));
        }

        if (connects)
        {
            Assert.That((await ConnectAsync(server, Options(policy))).IsTls, Is.True);
        }
        else
        {
            await FailAsync(server, NbdClientError.TlsRequired, Options(policy));
            Assert.That(server.Trace.Last(), Is.EqualTo(Opt.Abort));
        }
    }

    [Test, Property("Rule", "C030"), Property("Rule", "C031"), Property("Rule", "C032"), Property("Rule", "C033"),
        Property("Rule", "C037"), Property("Rule", "C038")]
    public async Task TLS_comes_first_and_once_and_everything_after_it_C030_C031_C032_C033_C037_C038(
        [Values(NbdTlsPolicy.Allow, NbdTlsPolicy.Require)] NbdTlsPolicy policy)
    {
        ScriptedServer server = Encrypting();

        ClientSession session = await ConnectAsync(server, Options(policy));

        Assert.That(
            server.Trace, Is.EqualTo([Opt.StartTls, Opt.ExtendedHeaders, Opt.StructuredReply, Opt.SetMeta, Opt.Go]));
        Assert.That(server.Options[0].Data, Is.Empty);
        Assert.That(session.IsTls, Is.True);
        Assert.That(session.StructuredReplies, Is.True);
        await session.Transport.SendAsync("after"u8.ToArray(), CancellationToken.None);
        await session.Transport.CloseAsync();
        await server.Ended.Soon();
        Assert.That(server.After, Is.EqualTo("after"u8.ToArray()));
    }

    [Test, Property("Rule", "C037")]
    public async Task Inside_TLS_no_export_is_opened_by_name_C037()
    {
        ScriptedServer server = Encrypting();
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Unsup));

        await FailAsync(server, NbdClientError.Unsupported, Options(NbdTlsPolicy.Require));

        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([Opt.Go, Opt.Abort]));
    }

    [Test, Property("Rule", "C034"), Property("Rule", "TLS_REQUIRE")]
    [Property("Threat", "libnbd-tls-downgrade"), Property("Threat", "libnbd-a81c927")]
    public async Task A_refused_upgrade_ends_a_client_that_requires_it_C034_TLS_REQUIRE(
        [Values(Rep.Unsup, Rep.Policy, Rep.Invalid, Rep.Platform, Rep.TlsRequired, 0x80004242u)] uint error)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.StartTls, ScriptedServer.Error(Opt.StartTls, error, "a message that must be skipped"));

        await FailAsync(server, NbdClientError.TlsUnavailable, Options(NbdTlsPolicy.Require));

        Assert.That(server.Trace, Is.EqualTo([Opt.StartTls, Opt.Abort]));
        var other = new ScriptedServer();
        other.Answer(Opt.StartTls, ScriptedServer.Error(Opt.StartTls, error, "a message that must be skipped"));
        Assert.That((await ConnectAsync(other, Options(NbdTlsPolicy.Allow))).IsTls, Is.False);
    }

    [Test, Property("Rule", "TLS_REQUIRE")]
    [Property("Threat", "libnbd-tls-downgrade")]
    public async Task Nothing_is_said_to_a_server_that_cannot_encrypt_TLS_REQUIRE()
    {
        byte[] oldstyle = new WireBytes().U64(Magic.Nbd).U64(0x00420281861253).U64(1 << 20).U32(1).Zeroes(124).ToArray();
        ScriptedServer[] servers =
        [
            new() { Greeting = oldstyle }, new() { HandshakeFlags = 0 }, new() { HandshakeFlags = 2 },
        ];
        foreach (ScriptedServer server in servers)
        {
            NbdClientError expected = server.Greeting is null ? NbdClientError.TlsUnavailable : NbdClientError.Unsupported;
            await FailAsync(server, expected, Options(NbdTlsPolicy.Require));
            Assert.That(server.ClientFlags, Is.Null);
            Assert.That(server.Options, Is.Empty);
        }
    }

    [Test, Property("Rule", "C035"), Property("Rule", "TLS_REQUIRE"), Property("Rule", "C040"), Property("Rule", "N02")]
    [Property("Threat", "N02")]
    [Property("Threat", "libnbd-tls-downgrade")]
    public async Task Plain_text_after_the_acknowledgement_is_never_believed_C035_C040_N02_TLS_REQUIRE(
        [Values(NbdTlsPolicy.Allow, NbdTlsPolicy.Require)] NbdTlsPolicy policy, [Values(false, true)] bool encrypts)
    {
        ScriptedServer server = encrypts ? Encrypting() : new ScriptedServer { Tls = _ => Task.FromResult<Stream?>(null) };
        byte[] forged =
        [
            .. ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Ack), .. ScriptedServer.Reply(Opt.StructuredReply, Rep.Ack),
        ];
        server.Answer(Opt.StartTls, [.. Ack, .. forged]);

        await FailAsync(server, NbdClientError.TlsFailed, Options(policy));

        Assert.That(server.Trace, Is.EqualTo([Opt.StartTls]), "not even a goodbye in plain text");
    }

    [Test, Property("Rule", "C035"), Property("Rule", "CVE_2024_7383")]
    [Property("Threat", "CVE-2024-7383")]
    public async Task A_server_that_cannot_prove_who_it_is_is_refused_C035_CVE_2024_7383(
        [ValueSource(nameof(Faults))] string fault, [Values(NbdTlsPolicy.Allow, NbdTlsPolicy.Require)] NbdTlsPolicy policy)
    {
        ScriptedServer server = Encrypting(ServerCertificates.Bad[fault]);

        await FailAsync(server, NbdClientError.TlsFailed, Options(policy));

        Assert.That(server.Trace, Is.EqualTo([Opt.StartTls]));
    }

    [Test, Property("Rule", "CVE_2024_7383")]
    [Property("Threat", "CVE-2024-7383")]
    public async Task By_default_only_the_authorities_of_the_system_are_believed_CVE_2024_7383()
        => await FailAsync(
            Encrypting(),
            NbdClientError.TlsFailed,
            new NbdClientOptions { Tls = NbdTlsPolicy.Require, TlsAuthentication = new() { TargetHost = "nbd.example" } });

    [Test, Property("Rule", "CVE_2024_7383")]
    [Property("Threat", "CVE-2024-7383")]
    public async Task Without_a_name_to_prove_nothing_is_sent_CVE_2024_7383(
        [Values(NbdTlsPolicy.Allow, NbdTlsPolicy.Require)] NbdTlsPolicy policy)
    {
        ScriptedServer server = Encrypting();

        NbdClientException failure = await FailAsync(server, NbdClientError.TlsFailed, Options(policy, host: null));

        Assert.That(failure.Message, Does.Contain("name"));
        Assert.That(server.ClientFlags, Is.Null);
    }

    [Test, Property("Rule", "CVE_2024_7383")]
    [Property("Threat", "CVE-2024-7383")]
    public async Task The_name_is_what_was_connected_to_CVE_2024_7383(
        [Values("192.0.2.7", "example", "sub.nbd.example", "nbd.example.evil", "NBD.example", "127.0.0.1")] string host)
    {
        if (host is "NBD.example" or "127.0.0.1")
        {
            Assert.That((await ConnectAsync(Encrypting(), Options(NbdTlsPolicy.Require, host))).IsTls, Is.True);
        }
        else
        {
            await FailAsync(Encrypting(), NbdClientError.TlsFailed, Options(NbdTlsPolicy.Require, host));
        }
    }

    [Test, Property("Rule", "C039")]
    public async Task TLS_1_2_and_1_3_are_spoken_C039([Values(SslProtocols.Tls12, SslProtocols.Tls13)] SslProtocols protocol)
        => Assert.That((await ConnectAsync(Encrypting(protocols: protocol), Options(NbdTlsPolicy.Require))).IsTls, Is.True);

    [Test, Property("Rule", "C039")]
    public async Task Older_versions_cannot_be_asked_for_C039()
    {
        NbdClientOptions options = Options(NbdTlsPolicy.Require);
        const SslProtocols Tls11 = (SslProtocols)768;
        options.TlsAuthentication!.EnabledSslProtocols = Tls11;

        await FailAsync(Encrypting(), NbdClientError.TlsFailed, options);
    }

    [Test]
    public async Task A_client_can_prove_who_it_is([Values] bool shown, [Values(SslProtocols.Tls12, SslProtocols.Tls13)] SslProtocols protocol)
    {
        ScriptedServer server = Encrypting(protocols: protocol, clientCertificate: true);
        NbdClientOptions options = Options(NbdTlsPolicy.Require) with
        {
            TlsAuthentication = ServerCertificates.Trusting(client: shown ? ServerCertificates.Client : null),
        };

        if (shown)
        {
            Assert.That((await ConnectAsync(server, options)).IsTls, Is.True);
        }
        else
        {
            await FailAsync(server, NbdClientError.TlsFailed, options);
        }
    }

    [Test, Property("Rule", "C035"), Property("Rule", "C086")]
    public async Task A_server_that_falls_silent_in_TLS_is_given_up_C035_C086()
    {
        var time = new FakeTimeProvider();
        var silent = new TaskCompletionSource<Stream?>();
        var server = new ScriptedServer { Tls = _ => silent.Task };
        server.Answer(Opt.StartTls, Ack);

        Task<ClientSession> connecting = ConnectAsync(server, Options(NbdTlsPolicy.Require) with { TimeProvider = time });

        await time.AdvanceUntilAsync(connecting);
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => connecting)!.Error, Is.EqualTo(NbdClientError.Timeout));
        silent.SetResult(null);
        await server.Ended.Soon();
    }

    [Test]
    public async Task The_options_of_the_host_are_left_as_they_were()
    {
        NbdClientOptions options = Options(NbdTlsPolicy.Require);
        SslClientAuthenticationOptions given = options.TlsAuthentication!;

        await ConnectAsync(Encrypting(), options);

        Assert.That(given.TargetHost, Is.EqualTo("nbd.example"));
        Assert.That(given.EnabledSslProtocols, Is.EqualTo(SslProtocols.None));
        Assert.That(given.AllowRenegotiation, Is.EqualTo(new SslClientAuthenticationOptions().AllowRenegotiation));
    }

    private static IEnumerable<string> Faults => ServerCertificates.Bad.Keys;
}
