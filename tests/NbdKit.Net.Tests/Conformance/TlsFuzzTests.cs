using System.Security.Authentication;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>A TLS handshake that goes wrong, wherever it does.</summary>
public sealed class TlsFuzzTests : WireTest
{
    // The client's part of a handshake is shorter, with its certificate.
    private const int Bytes = 1600;

    [TestCase(SslProtocols.Tls12, true), TestCase(SslProtocols.Tls12, false)]
    [TestCase(SslProtocols.Tls13, true), TestCase(SslProtocols.Tls13, false)]
    [Property("Rule", "P13"), Property("Rule", "S067")]
    public async Task P13_S067_A_handshake_cut_or_changed_at_any_byte_ends_only_that_connection(SslProtocols version, bool cut)
    {
        int seed = TestContext.CurrentContext.Random.Next();
        TestContext.Out.WriteLine($"seed {seed}");
        var random = new Random(seed);
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            Tls = new NbdServerTls(TestCertificates.Server)
            {
                ClientCertificates = NbdClientCertificates.Required,
                ClientAuthorities = TestCertificates.Authorities,
            },
        });
        int done = 0;
        for (int at = 0; at < Bytes; at += random.Next(1, 24))
        {
            var pipes = new PipePair();
            await using var client = new WireClient(
                new MangledPipe(pipes.Client, at + 20, cut), server.Server.ServeAsync(pipes.Server));
            await client.GreetAsync();
            await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
            try
            {
                WireClient inside = await client.AuthenticateAsync(TestCertificates.Client(TestCertificates.Alice, version));
                await inside.TryGoAsync();
                done++;
            }
            catch (Exception e) when (e is IOException or AuthenticationException or InvalidOperationException)
            {
                // What a client sees of it is its own affair.
            }
            await client.FinishAsync();
            await client.ExpectEndAsync();
        }

        Assert.That(server.Plugin.Opened, Is.LessThanOrEqualTo(done));
        TestContext.Out.WriteLine($"{done} handshakes were good");
        WireClient next = await (await server.HaggleAsync()).StartTlsAsync(TestCertificates.Client(TestCertificates.Alice));
        await next.GoAsync();
        await next.ExpectAliveAsync(server.Plugin.Data);
    }
}
