using System.Net;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Tests.Testing;

/// <summary>Certificates made for the tests, in memory.</summary>
internal static class TestCertificates
{
    public const string ServerUsage = "1.3.6.1.5.5.7.3.1";
    public const string ClientUsage = "1.3.6.1.5.5.7.3.2";

    private static readonly string[] Names = ["localhost", "127.0.0.1"];

    public static X509Certificate2 Authority { get; } = Root("CN=Test Authority");

    public static X509Certificate2 Stranger { get; } = Root("CN=Another Authority");

    public static X509Certificate2 Server { get; } = Issue(Authority, "CN=localhost", ServerUsage, Names);

    public static X509Certificate2 OtherServer { get; } = Issue(Authority, "CN=other", ServerUsage, Names);

    /// <summary>Whose subject is CN=alice,O=Example\, Inc,C=DE.</summary>
    public static X509Certificate2 Alice { get; } = Issue(Authority, "CN=alice, O=\"Example, Inc\", C=DE", ClientUsage);

    public static X509Certificate2 Mallory { get; } = Issue(Stranger, "CN=alice, O=\"Example, Inc\", C=DE", ClientUsage);

    public static X509Certificate2 Expired { get; } = Issue(Authority, "CN=late", ClientUsage, to: -1);

    public static X509Certificate2 ForServersOnly { get; } = Issue(Authority, "CN=server", ServerUsage, Names);

    public static X509Certificate2Collection Authorities => [Authority];

    /// <summary>What a client trusts and shows.</summary>
    public static SslClientAuthenticationOptions Client(
        X509Certificate2? certificate = null, SslProtocols protocols = SslProtocols.None)
    {
        var options = new SslClientAuthenticationOptions
        {
            TargetHost = "localhost",
            EnabledSslProtocols = protocols,
            CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
                DisableCertificateDownloads = true,
            },
        };
        options.CertificateChainPolicy.CustomTrustStore.Add(Authority);
        if (certificate is not null)
        {
            options.ClientCertificateContext = SslStreamCertificateContext.Create(certificate, null, offline: true);
        }
        return options;
    }

    /// <summary>A revocation list of the authority.</summary>
    public static byte[] Revoke(params X509Certificate2[] certificates)
    {
        var builder = new CertificateRevocationListBuilder();
        foreach (X509Certificate2 certificate in certificates)
        {
            builder.AddEntry(certificate);
        }
        return builder.Build(Authority, 1, DateTimeOffset.UtcNow.AddDays(30), HashAlgorithmName.SHA256);
    }

    /// <summary>Writes a directory as nbdkit and its clients expect it.</summary>
    public static void Write(string folder, X509Certificate2? client = null)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "ca-cert.pem"), Authority.ExportCertificatePem());
        Write(folder, "server", Server);
        if (client is not null)
        {
            Write(folder, "client", client);
        }
    }

    public static void Write(string folder, string name, X509Certificate2 certificate)
    {
        File.WriteAllText(Path.Combine(folder, name + "-cert.pem"), certificate.ExportCertificatePem());
        string path = Path.Combine(folder, name + "-key.pem");
        File.WriteAllText(path, certificate.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
    }

    /// <summary>A certificate that vouches for itself and for others.</summary>
    public static X509Certificate2 Root(string name, string[]? hosts = null)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(
            X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign | X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        AddHosts(request, hosts ?? []);
        return request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-10), DateTimeOffset.UtcNow.AddDays(300));
    }

    /// <summary>A certificate of an authority, valid from some day to another, counted from today.</summary>
    public static X509Certificate2 Issue(
        X509Certificate2 authority, string name, string usage, string[]? hosts = null, int from = -5, int to = 200)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(usage)], critical: false));
        request.CertificateExtensions.Add(
            X509AuthorityKeyIdentifierExtension.CreateFromCertificate(authority, includeKeyIdentifier: true, false));
        AddHosts(request, hosts ?? []);
        byte[] serial = [1, .. RandomNumberGenerator.GetBytes(7)];
        using X509Certificate2 certificate = request.Create(
            authority, DateTimeOffset.UtcNow.AddDays(from), DateTimeOffset.UtcNow.AddDays(to), serial);
        return certificate.CopyWithPrivateKey(key);
    }

    private static void AddHosts(CertificateRequest request, string[] hosts)
    {
        if (hosts.Length == 0)
        {
            return;
        }
        var names = new SubjectAlternativeNameBuilder();
        foreach (string host in hosts)
        {
            if (IPAddress.TryParse(host, out IPAddress? address))
            {
                names.AddIpAddress(address);
            }
            else
            {
                names.AddDnsName(host);
            }
        }
        request.CertificateExtensions.Add(names.Build());
    }
}
