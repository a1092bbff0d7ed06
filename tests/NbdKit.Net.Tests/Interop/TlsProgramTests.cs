using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The TLS of OpenSSL and GnuTLS as programs that accept our client.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class TlsProgramTests
{
    private static NbdClientOptions Requiring(bool known) => new()
    {
        Tls = NbdTlsPolicy.Require,
        TlsAuthentication = known ? TestCertificates.Client(TestCertificates.Alice) : TestCertificates.Client(TestCertificates.Mallory),
    };

    private static string[] Openssl(ScratchDirectory folder, int port, string version) =>
    [
        "s_server", "-accept", $"127.0.0.1:{port}", "-cert", folder["server-cert.pem"], "-key", folder["server-key.pem"], "-CAfile",
        folder["ca-cert.pem"], "-Verify", "2", "-verify_return_error", "-quiet", version,
    ];

    [Test]
    public async Task A_session_inside_OpenSSL([Values("-tls1_2", "-tls1_3")] string version)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        byte[] content = TestData.Random((1 << 20) + 77);
        byte[] read = new byte[content.Length];
        await using InteropServer plain = await InteropServer.StartAsync(new MemoryPlugin { Size = 2 << 20 });
        await using var program = TlsProgram.Start("openssl", port => Openssl(folder, port, version));
        Task serving = program.ServeAsync(plain.Server.EndPoints[0]);
        await using (NbdClient client = await NbdClient.ConnectAsync(program.EndPoint, Requiring(known: true)))
        {
            Assert.That(client.IsTls && client.HasExtendedHeaders);
            await client.WriteAsync(content, 5);
            await client.FlushAsync();
            await client.ReadAsync(read, 5);
        }
        await serving.WaitAsync(Peer.Deadline);

        Assert.That(read.AsSpan().SequenceEqual(content));
    }

    [Test]
    public async Task OpenSSL_refuses_a_certificate_of_somebody_else([Values("-tls1_2", "-tls1_3")] string version)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        await using var program = TlsProgram.Start("openssl", port => Openssl(folder, port, version));

        NbdClientException refusal = Assert.ThrowsAsync<NbdClientException>(
            () => NbdClient.ConnectAsync(program.EndPoint, Requiring(known: false)))!;

        Assert.That(refusal.Error, Is.EqualTo(NbdClientError.TlsFailed));
    }

    /// <summary>GnuTLS's server has no way to pass NBD on; with nbdkit, QEMU and nbd-server it serves elsewhere among these tests.</summary>
    [TestCase("1.2", "Tls12"), TestCase("1.3", "Tls13")]
    public async Task GnuTLS_shakes_hands_and_its_silence_inside_has_an_end(string version, string expected)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        var log = new RecordingLog();
        await using var program = TlsProgram.Start("gnutls-serv", port =>
        [
            "--echo", "--port", $"{port}", "--x509certfile", folder["server-cert.pem"], "--x509keyfile", folder["server-key.pem"],
            "--x509cafile", folder["ca-cert.pem"], "--require-client-cert", "--verify-client-cert",
            "--priority", $"NORMAL:-VERS-ALL:+VERS-TLS{version}",
        ]);
        NbdClientOptions options = Requiring(known: true) with { HandshakeTimeout = TimeSpan.FromSeconds(5), LoggerFactory = log };

        NbdClientException end = Assert.ThrowsAsync<NbdClientException>(() => NbdClient.ConnectAsync(program.EndPoint, options))!;

        Assert.That(end.Error, Is.EqualTo(NbdClientError.Timeout), end.Message);
        Assert.That(log.Entries.Select(entry => entry.Text), Has.One.Contains("encrypted with " + expected));
    }
}
