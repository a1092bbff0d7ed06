using System.Net.Security;
using System.Security.Authentication;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The TLS of GnuTLS and OpenSSL: in libnbd's tools, QEMU's and nbd-client, and by themselves.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class TlsTests
{
    private static readonly NbdServerTls Verified = new(TestCertificates.Server)
    {
        ClientCertificates = NbdClientCertificates.Required,
        ClientAuthorities = TestCertificates.Authorities,
    };

    [Test]
    public async Task Libnbd_copies_there_and_back([Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder["pki"], TestCertificates.Alice);
        byte[] content = TestData.Random((8 << 20) + 77);
        string source = folder.Write("source", content);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = content.Length }), socket, new NbdServerOptions { Tls = Verified });
        string uri = UriOf(server, socket, folder["pki"]);

        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", uri), Is.EqualTo($"{content.Length}\n"));
        Assert.That(await Peer.OutputAsync("nbdinfo", uri), Does.Contain("TLS"));
        await Peer.OutputAsync("nbdcopy", source, uri);
        await Peer.OutputAsync("nbdcopy", uri, folder["back"]);

        Assert.That(File.ReadAllBytes(folder["back"]).AsSpan().SequenceEqual(content));
        Assert.That(server.Log.Entries.Count(entry => entry.Text.Contains("is encrypted")), Is.GreaterThanOrEqualTo(4));
    }

    /// <summary>Some keys are written with a zero too many; see EcPrivateKey.</summary>
    [TestCase("--key-type=rsa"), TestCase("--key-type=ecdsa"), TestCase("--key-type=ecdsa"), TestCase("--key-type=ecdsa")]
    public async Task Certificates_that_certtool_made_are_served(string keyType)
    {
        using var folder = new ScratchDirectory();
        folder.Write("ca.info", "cn = an authority\nca\ncert_signing_key\n"u8.ToArray());
        folder.Write("server.info", "cn = localhost\ndns_name = localhost\ntls_www_server\nencryption_key\nsigning_key\n"u8.ToArray());
        foreach (string name in new[] { "ca", "server" })
        {
            await Peer.OutputAsync("certtool", "--generate-privkey", keyType, "--outfile", folder[$"{name}-key.pem"]);
        }
        await Peer.OutputAsync(
            "certtool", "--generate-self-signed", "--load-privkey", folder["ca-key.pem"], "--template", folder["ca.info"], "--outfile",
            folder["ca-cert.pem"]);
        await Peer.OutputAsync(
            "certtool", "--generate-certificate", "--load-ca-certificate", folder["ca-cert.pem"], "--load-ca-privkey",
            folder["ca-key.pem"], "--load-privkey", folder["server-key.pem"], "--template", folder["server.info"], "--outfile",
            folder["server-cert.pem"]);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }), SocketKind.Tcp,
            new NbdServerOptions { Tls = NbdServerTls.FromDirectory(folder.Path) });

        Assert.That(
            await Peer.OutputAsync("nbdinfo", "--size", UriOf(server, SocketKind.Tcp, folder.Path)), Is.EqualTo("512\n"));
    }

    [Test]
    public async Task Libnbd_is_refused_without_a_certificate_and_in_plain_text()
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder["none"]);
        TestCertificates.Write(folder["bad"], TestCertificates.Mallory);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }), SocketKind.Tcp, new NbdServerOptions { Tls = Verified }, lenient: true);
        foreach (string pki in new[] { folder["none"], folder["bad"] })
        {
            Assert.That((await Peer.RunAsync("nbdinfo", "--size", UriOf(server, SocketKind.Tcp, pki))).Status, Is.Not.Zero);
        }
        PeerResult plain = await Peer.RunAsync("nbdinfo", "--size", server.UriOf(""));
        Assert.That(plain.Status, Is.Not.Zero, plain.ToString());
    }

    [Test]
    public async Task Qemu_reads_and_writes([Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder["pki"], TestCertificates.Alice);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }), socket, new NbdServerOptions { Tls = Verified });
        string where = socket == SocketKind.Unix
            ? $"server.type=unix,server.path={server.SocketPath}"
            : $"server.type=inet,server.host=127.0.0.1,server.port={server.Port}";
        string[] image = ["--object", $"tls-creds-x509,id=tls0,endpoint=client,dir={folder["pki"]}"];
        string options = $"driver=nbd,{where},tls-creds=tls0,tls-hostname=localhost";

        await Peer.OutputAsync(
            "qemu-io", [.. image, "--image-opts", options, "-c", "write -P 0x5a 1M 20M", "-c", "read -P 0x5a 1M 20M", "-c", "flush"]);
        string info = await Peer.OutputAsync("qemu-img", ["info", .. image, "--image-opts", options]);
        await Peer.OutputAsync("qemu-img", ["convert", .. image, "--image-opts", options, "-O", "raw", folder["out"]]);

        Assert.That(info, Does.Contain("64 MiB"));
        byte[] copy = File.ReadAllBytes(folder["out"]);
        Assert.That(copy.AsSpan(1 << 20, 20 << 20).IndexOfAnyExcept((byte)0x5a), Is.EqualTo(-1));
        Assert.That(copy.AsSpan(21 << 20).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
    }

    [Test]
    public async Task Nbd_client_lists_exports()
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder["pki"], TestCertificates.Alice);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new ExportsPlugin()), SocketKind.Tcp, new NbdServerOptions { Tls = Verified }, lenient: true);

        PeerResult list = await Peer.RunAsync(
            "nbd-client", "-l", "127.0.0.1", $"{server.Port}", "-cacertfile", folder["pki/ca-cert.pem"], "-certfile",
            folder["pki/client-cert.pem"], "-keyfile", folder["pki/client-key.pem"], "-tlshostname", "localhost");

        foreach (string name in ExportsPlugin.Names)
        {
            Assert.That(list.ToString(), Does.Contain(name));
        }
    }

    [TestCase("-tls1_2", "TLSv1.2"), TestCase("-tls1_3", "TLSv1.3")]
    public async Task Openssl_shakes_hands_in_each_version(string version, string expected)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        await using InteropServer server = await StartPlainCertificateAsync();
        await using var shim = new StartTlsShim(server.Server.EndPoints[0]);

        PeerResult result = await Peer.RunAsync(
            "openssl", "s_client", "-connect", $"127.0.0.1:{shim.Port}", "-CAfile", folder["ca-cert.pem"], "-verify_return_error",
            "-verify_hostname", "localhost", "-brief", version);

        Assert.That(result.Expect(0).ToString(), Does.Contain(expected).And.Contain("Verification: OK"));
    }

    [Test]
    public async Task Openssl_cannot_renegotiate()
    {
        Peer.Require("openssl");
        await using InteropServer server = await StartPlainCertificateAsync();
        await using var shim = new StartTlsShim(server.Server.EndPoints[0]);

        PeerResult result = await Peer.RunAsync(
            "/bin/sh", "-c", $"(sleep 0.5; echo R; sleep 1) | timeout 2 openssl s_client -connect 127.0.0.1:{shim.Port} -tls1_2");

        // Each handshake looks at the certificate.
        Assert.That(result.ToString(), Does.Contain("RENEGOTIATING"));
        Assert.That(result.Errors.Split("depth=0").Length - 1, Is.EqualTo(result.Errors.Split("verify return").Length - 1), result.ToString());
        Assert.That(result.Errors.Split("unable to verify the first certificate").Length - 1, Is.EqualTo(1), result.ToString());
    }

    [TestCase("NORMAL:-VERS-ALL:+VERS-TLS1.2", true)]
    [TestCase("NORMAL:-VERS-ALL:+VERS-TLS1.3", true)]
    [TestCase("NORMAL:-VERS-ALL:+VERS-TLS1.1", false)]
    [TestCase("NORMAL:-VERS-ALL:+VERS-TLS1.0", false)]
    // Pre-shared keys only: refused, and the next client is served.
    [TestCase("NORMAL:-KX-ALL:+ECDHE-PSK:+PSK:-VERS-ALL:+VERS-TLS1.2", false)]
    // No cipher in common.
    [TestCase("NONE:+VERS-TLS1.2:+CAMELLIA-128-CBC:+SHA1:+RSA:+SIGN-ALL:+COMP-NULL:+GROUP-ALL", false)]
    public async Task Gnutls_shakes_hands_as_far_as_it_may(string priority, bool expected)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        await using InteropServer server = await StartPlainCertificateAsync();
        await using var shim = new StartTlsShim(server.Server.EndPoints[0]);

        PeerResult result = await Peer.RunAsync(
            "gnutls-cli", "--x509cafile", folder["ca-cert.pem"], "--port", $"{shim.Port}", "--verify-hostname", "localhost",
            "--pskusername", "alice", "--pskkey", "9e32cf7786321a828ef7668f09fb35db", "--priority", priority, "127.0.0.1");

        Assert.That(result.ToString().Contains("Handshake was completed"), Is.EqualTo(expected), result.ToString());
        Assert.That(
            await Peer.OutputAsync("nbdinfo", "--size", UriOf(server, SocketKind.Tcp, folder.Path)), Is.EqualTo("512\n"));
    }

    [Test]
    public async Task Libnbd_with_a_pre_shared_key_fails_cleanly()
    {
        using var folder = new ScratchDirectory();
        string keys = folder.Write("keys", "alice:9e32cf7786321a828ef7668f09fb35db\n"u8.ToArray());
        await using InteropServer server = await StartPlainCertificateAsync();

        PeerResult result = await Peer.RunAsync("nbdinfo", $"nbds://alice@127.0.0.1:{server.Port}/?tls-psk-file={keys}");

        Assert.That(result.Status, Is.Not.Zero, result.ToString());
        // The client may be gone before the server has noticed.
        await server.Server.StopAsync();
        Assert.That(server.Log.Entries.Count(entry => entry.Text.Contains("TLS failed")), Is.EqualTo(1));
    }

    [Test]
    public async Task Nbdinfo_sees_the_fallback_disk_in_plain_text_and_the_real_one_inside()
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }, new TlsFallbackFilter()), SocketKind.Tcp,
            new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false } });

        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", server.UriOf("x")), Is.EqualTo("512\n"));
        Assert.That(await Peer.OutputAsync("nbdcopy", server.UriOf("x"), "-"), Does.StartWith("This server").And.Length.EqualTo(512));
        Assert.That(
            await Peer.OutputAsync("nbdinfo", "--size", server.UriOf("x").Replace("nbd:", "nbds:") + $"?tls-certificates={folder.Path}"),
            Is.EqualTo("1048576\n"));
    }

    [Test]
    public async Task The_ip_filter_lets_nbdinfo_in_by_address_user_and_certificate()
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder["pki"], TestCertificates.Alice);
        foreach ((SocketKind socket, string rule, bool expected) in new[]
        {
            (SocketKind.Tcp, "127.0.0.0/8", true), (SocketKind.Tcp, "127.0.0.2", false), (SocketKind.Tcp, "host:localhost", true),
            (SocketKind.Unix, $"uid:{ScratchDirectory.Run("id", "-u").Trim()}", true), (SocketKind.Unix, "pid:1", false),
            (SocketKind.Tcp, "dn:CN=alice,*", true), (SocketKind.Unix, "dn:CN=bob,*", false),
        })
        {
            await using InteropServer server = await InteropServer.StartAsync(
                NbdBackend.Compose(new MemoryPlugin { Size = 512 }, new IpFilter { Allow = [rule], Deny = ["all"] }), socket,
                new NbdServerOptions { Tls = Verified }, lenient: true);
            PeerResult result = await Peer.RunAsync("nbdinfo", "--size", UriOf(server, socket, folder["pki"]));
            Assert.That(result.Status == 0, Is.EqualTo(expected), $"{rule}: {result}");
        }
    }

    private static Task<InteropServer> StartPlainCertificateAsync()
        => InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }), SocketKind.Tcp,
            new NbdServerOptions
            {
                Tls = new NbdServerTls(new SslServerAuthenticationOptions
                {
                    ServerCertificateContext = SslStreamCertificateContext.Create(TestCertificates.Server, null, offline: true),
                    // Older ones are asked for here, and refused all the same.
                    EnabledSslProtocols = (SslProtocols)(192 | 768) | SslProtocols.Tls12 | SslProtocols.Tls13,
                }),
            },
            lenient: true);

    private static string UriOf(InteropServer server, SocketKind socket, string pki)
    {
        Assert.That(server.Uri, Does.StartWith("nbds"));
        // The certificate names the host.
        string uri = server.Uri.Replace("127.0.0.1", "localhost", StringComparison.Ordinal);
        return $"{uri}{(socket == SocketKind.Unix ? '&' : '?')}tls-certificates={pki}";
    }
}
