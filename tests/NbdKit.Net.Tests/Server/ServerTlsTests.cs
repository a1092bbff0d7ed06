using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Certificates: the server's, its clients', and what layers learn of them.</summary>
public sealed class ServerTlsTests : WireTest
{
    private static readonly NbdServerTls Verified = new(TestCertificates.Server)
    {
        ClientCertificates = NbdClientCertificates.Required,
        ClientAuthorities = TestCertificates.Authorities,
    };

    private static IEnumerable<TestCaseData> BadClients()
    {
        yield return new TestCaseData((X509Certificate2?)null).SetArgDisplayNames("none");
        yield return new TestCaseData(TestCertificates.Mallory).SetArgDisplayNames("another authority");
        yield return new TestCaseData(TestCertificates.Expired).SetArgDisplayNames("expired");
        yield return new TestCaseData(TestCertificates.ForServersOnly).SetArgDisplayNames("for servers only");
        yield return new TestCaseData(TestCertificates.Stranger).SetArgDisplayNames("self-signed");
    }

    [TestCaseSource(nameof(BadClients)), Property("Rule", "S067")]
    public async Task S067_Where_a_certificate_is_required_a_bad_one_ends_the_connection(X509Certificate2? certificate)
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { Tls = Verified });
        foreach (SslProtocols version in new[] { SslProtocols.Tls12, SslProtocols.Tls13 })
        {
            WireClient client = await server.HaggleAsync();
            await client.ExpectNoTlsAsync(TestCertificates.Client(certificate, version));
        }
        Assert.That(server.Plugin.Opened, Is.Zero, "nothing is opened for a client that is not known");
    }

    [Test]
    public async Task Where_a_certificate_is_optional_none_is_fine_and_a_bad_one_is_not()
    {
        ServerFixture server = await ServeAsync(
            options: new NbdServerOptions { Tls = Verified with { ClientCertificates = NbdClientCertificates.Optional } });
        await (await (await server.HaggleAsync()).StartTlsAsync()).GoAsync();
        await (await (await server.HaggleAsync()).StartTlsAsync(TestCertificates.Client(TestCertificates.Alice))).GoAsync();
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Mallory));
    }

    [Test]
    public async Task A_certificate_that_was_taken_back_is_refused_and_others_are_not()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            Tls = Verified with { ClientRevocationLists = [TestCertificates.Revoke(TestCertificates.Alice, TestCertificates.Expired)] },
        });
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Alice));

        ServerFixture other = await ServeAsync(options: new NbdServerOptions
        {
            Tls = Verified with { ClientRevocationLists = [TestCertificates.Revoke(TestCertificates.Expired), TestCertificates.Revoke()] },
        });
        await (await (await other.HaggleAsync()).StartTlsAsync(TestCertificates.Client(TestCertificates.Alice))).GoAsync();
    }

    [TestCase(new byte[0]), TestCase(new byte[] { 0x30, 0 }), TestCase(new byte[] { 1, 2, 3 })]
    public void What_is_no_revocation_list_is_said_to_be_none(byte[] list)
        => Assert.That(
            () => Verified with { ClientRevocationLists = [list] }, Throws.ArgumentException.With.Message.Contains("revocation list"));

    [Test]
    public async Task Layers_see_the_client_in_list_and_open_and_nothing_in_plain_text()
    {
        var seen = new List<string?>();
        void See(NbdConnection? c) => seen.Add($"{c!.IsTls} {c.PeerSubject ?? "-"} {c.PeerIssuer ?? "-"} {c.PeerCertificate is not null}");
        var plugin = new TestPlugin { OnList = (list, connection) => See(connection) };
        plugin.OnOpen = (context, _) =>
        {
            See(context.Connection);
            return default;
        };
        ServerFixture server = await ServeAsync(plugin, new NbdServerOptions { Tls = Verified with { IsRequired = false } });
        WireClient plain = await server.HaggleAsync();
        await plain.OptAsync(Opt.List);
        WireClient inside = await plain.StartTlsAsync(TestCertificates.Client(TestCertificates.Alice));
        await inside.OptAsync(Opt.List);
        await inside.GoAsync();

        const string Alice = """True CN=alice,O=Example\, Inc,C=DE CN=Test Authority True""";
        Assert.That(seen, Is.EqualTo(new[] { "False - - False", Alice, Alice }));
        Assert.That(server.Server.Connections.Single().PeerCertificate!.Thumbprint, Is.EqualTo(TestCertificates.Alice.Thumbprint));
    }

    [Test]
    public async Task A_stream_that_is_encrypted_already_is_known_to_be_in_preconnect()
    {
        var plugin = new PreconnectPlugin();
        await using var server = new NbdServer(NbdBackend.Compose(plugin));
        var pipes = new PipePair();
        var ssl = new SslStream(new TapStream(pipes.Server));
        Assert.That(async () => await server.ServeAsync(ssl), Throws.ArgumentException);
        Task accepting = ssl.AuthenticateAsServerAsync(new SslServerAuthenticationOptions
        {
            ServerCertificate = TestCertificates.Server,
            ClientCertificateRequired = true,
            RemoteCertificateValidationCallback = (_, _, _, _) => true,
        });
        WireClient inside = await new WireClient(pipes.Client, new TaskCompletionSource<NbdDisconnect>().Task)
            .AuthenticateAsync(TestCertificates.Client(TestCertificates.Alice));
        await accepting;
        Task<NbdDisconnect> served = server.ServeAsync(ssl);
        await inside.GreetAsync();

        Assert.That(plugin.Seen, Is.EqualTo((true, """CN=alice,O=Example\, Inc,C=DE""")));
        await inside.ExpectOptAsync(Rep.Invalid, Opt.StartTls);
        await inside.ExpectOptAsync(Rep.Ack, Opt.Abort);
        Assert.That(await inside.ReadToEndAsync(), Is.Empty);
        Assert.That((await served).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }

    [Test]
    public async Task The_certificate_can_be_replaced_while_the_server_serves()
    {
        X509Certificate2 current = TestCertificates.Server;
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            Tls = new NbdServerTls((_, _) => new(new SslServerAuthenticationOptions { ServerCertificate = current })),
        });
        WireClient first = await (await server.HaggleAsync()).StartTlsAsync();
        await first.GoAsync();
        current = TestCertificates.OtherServer;
        WireClient second = await (await server.HaggleAsync()).StartTlsAsync();

        Assert.That(first.Tls!.RemoteCertificate!.Subject, Is.EqualTo("CN=localhost"));
        Assert.That(second.Tls!.RemoteCertificate!.Subject, Is.EqualTo("CN=other"));
        await first.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "N15")]
    public async Task N15_A_callback_that_fails_or_finds_nothing_ends_only_that_connection()
    {
        Func<SslServerAuthenticationOptions> choose = () => throw new InvalidOperationException("no certificate today");
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            Tls = new NbdServerTls((_, _) => new(choose())) { IsRequired = false },
        });
        foreach (Func<SslServerAuthenticationOptions> bad in new Func<SslServerAuthenticationOptions>[]
        {
            choose, () => null!, () => new SslServerAuthenticationOptions(),
        })
        {
            choose = bad;
            WireClient client = await server.HaggleAsync();
            await client.SendOptionAsync(Opt.StartTls);
            await client.ExpectGoneAsync(NbdDisconnectReason.TlsFailed);
        }
        choose = () => new SslServerAuthenticationOptions
        {
            ServerCertificate = TestCertificates.Server,
            RemoteCertificateValidationCallback = (_, _, _, _) => throw new InvalidOperationException("refused by a defect"),
            ClientCertificateRequired = true,
        };
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Alice));
        choose = () => new SslServerAuthenticationOptions { ServerCertificate = TestCertificates.Server };
        await (await (await server.HaggleAsync()).StartTlsAsync()).GoAsync();
    }

    [Test]
    public async Task The_hosts_own_check_can_only_refuse_more()
    {
        bool answer = true;
        var tls = new NbdServerTls(new SslServerAuthenticationOptions
        {
            ServerCertificate = TestCertificates.Server,
            RemoteCertificateValidationCallback = (_, _, _, _) => answer,
        })
        {
            ClientCertificates = NbdClientCertificates.Required,
            ClientAuthorities = TestCertificates.Authorities,
        };
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { Tls = tls });
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Mallory));
        await (await (await server.HaggleAsync()).StartTlsAsync(TestCertificates.Client(TestCertificates.Alice))).GoAsync();
        answer = false;
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Alice));
    }

    [Test]
    public void A_configuration_that_cannot_work_is_refused()
    {
        using X509Certificate2 bare = X509CertificateLoader.LoadCertificate(TestCertificates.Server.RawData);
        Assert.That(() => new NbdServerTls(bare), Throws.ArgumentException.With.Message.Contains("private key"));
        Assert.That(
            () => new NbdServerTls(new SslServerAuthenticationOptions()), Throws.ArgumentException.With.Message.Contains("no certificate"));
        Assert.That(
            () => new NbdServer(
                NbdBackend.Compose(new TestPlugin()),
                new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server), OfferFixedNewstyle = false }),
            Throws.ArgumentException.With.Message.Contains("fixed newstyle"));
        Assert.That(
            () => Verified with { ClientCertificates = (NbdClientCertificates)9 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task A_predicate_that_throws_lets_nothing_through()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            Tls = new NbdServerTls(TestCertificates.Server)
            {
                IsRequired = false,
                AllowsPlainText = _ => throw new InvalidOperationException("a defect"),
            },
        });
        WireClient client = await server.HaggleAsync();
        Assert.That((await client.TryGoAsync()).Type, Is.EqualTo(Rep.TlsRequired));
        Assert.That((await client.OptAsync(Opt.List)).Replies, Has.Count.EqualTo(1));
    }

    [Test]
    public async Task A_directory_in_nbdkits_layout_is_read()
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        File.WriteAllText(folder["ca-crl.pem"], System.Security.Cryptography.PemEncoding.WriteString(
            "X509 CRL", TestCertificates.Revoke(TestCertificates.Expired, TestCertificates.Alice)));
        NbdServerTls tls = NbdServerTls.FromDirectory(folder.Path);
        Assert.That(tls.ClientRevocationLists, Has.Count.EqualTo(1));
        ServerFixture server = await ServeAsync(
            options: new NbdServerOptions { Tls = tls with { ClientCertificates = NbdClientCertificates.Optional } });
        await (await (await server.HaggleAsync()).StartTlsAsync()).GoAsync();
        await (await server.HaggleAsync()).ExpectNoTlsAsync(TestCertificates.Client(TestCertificates.Alice));
    }

    [Test]
    public void A_directory_that_lacks_something_is_refused_by_name()
    {
        using var folder = new ScratchDirectory();
        string full = folder["full"];
        TestCertificates.Write(full);
        foreach ((string file, string? text, string expected) in new (string, string?, string)[]
        {
            ("server-cert.pem", null, "server-cert.pem"),
            ("server-key.pem", null, "server-key.pem"),
            ("ca-cert.pem", null, "ca-cert.pem"),
            ("ca-cert.pem", "nothing", "ca-cert.pem"),
            ("server-key.pem", "nothing", "server-key.pem"),
            ("server-key.pem", TestCertificates.Alice.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem(), "server-key.pem"),
            ("ca-crl.pem", "", "ca-crl.pem"),
        })
        {
            string part = folder[$"{file}-{text?.Length}"];
            TestCertificates.Write(part);
            string path = Path.Combine(part, file);
            File.Delete(path);
            if (text is not null)
            {
                File.WriteAllText(path, text);
            }
            Assert.That(
                () => NbdServerTls.FromDirectory(part),
                (Throws.InstanceOf<IOException>().Or.InstanceOf<ArgumentException>()).With.Message.Contains(expected));
        }
    }

    [TestCase("CN=a", "CN=a")]
    [TestCase("CN=a b, O=Example, C=DE", "CN=a b,O=Example,C=DE")]
    [TestCase("O=\"x+y;z<>,\"", """O=x\+y\;z\<\>\,""")]
    [TestCase("O=\" x \"", """O=\ x\ """)]
    [TestCase("OU=#1", """OU=\#1""")]
    [TestCase("DC=org, E=a@b", "DC=org,EMAIL=a@b")]
    public void A_name_is_written_as_rfc_4514_has_it(string name, string expected)
        => Assert.That(DistinguishedName.Text(new X500DistinguishedName(name)), Is.EqualTo(expected));

    private sealed class PreconnectPlugin : INbdPlugin
    {
        public (bool IsTls, string? Subject) Seen { get; private set; }

        public string Name => "preconnect";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        {
            Seen = (connection.IsTls, connection.PeerSubject);
            return default;
        }

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
            => throw new NbdException(NbdError.InvalidArgument, "nothing to open");
    }
}
