using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>TLS handshakes that are good for nothing, or nearly so: they cost a bounded time, and end in good order.</summary>
public sealed class TlsHandshakeLimitTests : WireTest
{
    private static readonly NbdServerOptions Identified = new()
    {
        Tls = new NbdServerTls(TestCertificates.Server)
        {
            ClientCertificates = NbdClientCertificates.Required,
            ClientAuthorities = TestCertificates.Authorities,
        },
    };

    [Test, Property("Threat", "P13")]
    public async Task A_long_chain_of_certificates_is_taken_if_it_is_good_and_refused_if_not([Values] bool trusted)
    {
        var chain = new CertificateChain(30, trusted ? TestCertificates.Authority : TestCertificates.Stranger);
        ServerFixture server = await ServeAsync(options: Identified);
        WireClient client = await server.HaggleAsync();

        if (trusted)
        {
            WireClient inside = await client.StartTlsAsync(chain.Show(TestCertificates.Client()));
            await inside.GoAsync();
            await inside.ExpectAliveAsync(server.Plugin.Data);
        }
        else
        {
            await client.ExpectNoTlsAsync(chain.Show(TestCertificates.Client()));
            Assert.That(server.Plugin.Opened, Is.Zero);
        }
    }

    [Test, Property("Threat", "N15")]
    public async Task A_client_that_has_only_a_pre_shared_key_is_told_so_and_gone([Values] bool is13)
    {
        ServerFixture server = await ServeAsync(options: Identified);
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
        await client.SendAsync(ClientHello.OnlyPresharedKey(is13));

        byte[] rest = await client.ReadToEndAsync();

        // alert 21, version 16, length 16, fatal 2, what
        Assert.That(rest, Has.Length.EqualTo(7));
        Assert.That(rest.Take(1).Concat(rest.Skip(5).Take(1)), Is.EqualTo(new byte[] { 21, 2 }), "a fatal alert");
        await client.ExpectEndAsync(NbdDisconnectReason.TlsFailed);
        Assert.That(server.Plugin.Opened, Is.Zero);
    }
}
