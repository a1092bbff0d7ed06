using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>The handshake of TLS: old versions, bad certificates, silence and garbage.</summary>
internal static class HandshakeCases
{
    private static readonly CertificateChain Chain = new(30, TestCertificates.Authority);

    private static readonly X509Certificate2 NotYet = TestCertificates.Issue(
        TestCertificates.Authority, "CN=early", TestCertificates.ClientUsage, from: 1);

    public static TlsCase[] All { get; } =
    [
        Instead("SSL 2", _ => ClientHello.Ssl2),
        Instead("SSL 3", _ => ClientHello.Old(0x300)),
        Instead("TLS 1.0", _ => ClientHello.Old(0x301)),
        Instead("TLS 1.1", _ => ClientHello.Old(0x302)),
        Instead("no common cipher", scene => ClientHello.NoCommonCipher(Is13(scene))),
        Instead("a pre-shared key only", scene => ClientHello.OnlyPresharedKey(Is13(scene))),
        Instead("a garbage record", _ => [.. Enumerable.Repeat((byte)0x55, 16 << 10)]),
        Instead("a handshake record of garbage", _ => [22, 3, 1, 0x40, 0, .. Enumerable.Repeat((byte)0xee, 16 << 10)]),
        Instead("an oversized record", _ => [22, 3, 1, 0xff, 0xff, .. new byte[0xffff]]),
        Instead("an alert first", _ => [21, 3, 3, 0, 2, 2, 40, .. new byte[9]]),
        Instead("application data first", _ => [23, 3, 3, 0, 11, .. new byte[11]]),
        Shows("no certificate", scene => scene.Shows(null)),
        Shows("a certificate of another authority", scene => scene.Shows(TestCertificates.Mallory)),
        Shows("an expired certificate", scene => scene.Shows(TestCertificates.Expired)),
        Shows("a certificate not yet valid", scene => scene.Shows(NotYet)),
        Shows("a certificate for servers only", scene => scene.Shows(TestCertificates.ForServersOnly)),
        Shows("a self-signed certificate", scene => scene.Shows(TestCertificates.Stranger)),
        Shows("a revoked certificate", scene => scene.Shows(TlsScene.Revoked)),
        new("a chain of 30 certificates", ChainAsync),
        Served("no server name", scene => Named(scene, "")),
        Served("a wrong server name", scene => Named(scene, "elsewhere.example")),
        new("a ClientHello byte by byte", async scene => await (await scene.ServedAsync(byByte: true)).LeaveAsync()),
        Stalls("before the ClientHello", 0),
        Stalls("inside the ClientHello", 1),
        Stalls("behind the ClientHello", 2),
        Stalls("inside the second flight", 3),
    ];

    private static bool Is13(TlsScene scene) => scene.Version == SslProtocols.Tls13;

    private static TlsCase Instead(string name, Func<TlsScene, byte[]> bytes)
        => new(name, async scene => await (await scene.HaggleAsync()).InsteadAsync(bytes(scene)));

    private static TlsCase Shows(string name, Func<TlsScene, SslClientAuthenticationOptions> options)
        => new(name, async scene => await (await scene.HaggleAsync()).FailAsync(options(scene)));

    private static TlsCase Served(string name, Func<TlsScene, SslClientAuthenticationOptions> options)
        => new(name, async scene => await (await scene.ServedAsync(options(scene))).LeaveAsync());

    private static TlsCase Stalls(string where, int halves)
        => new($"silence {where}", async scene => await (await scene.HaggleAsync()).StallAsync(halves, scene.Alice));

    // A server has one certificate, whatever it is asked for; the name is the client's to judge.
    private static SslClientAuthenticationOptions Named(TlsScene scene, string name)
    {
        SslClientAuthenticationOptions options = scene.Alice;
        options.TargetHost = name;
        options.RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is not null;
        return options;
    }

    // It is long, but good.
    private static async Task ChainAsync(TlsScene scene)
        => await (await scene.ServedAsync(Chain.Show(scene.Alice))).LeaveAsync();
}
