using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Tests.Testing;

/// <summary>An authority made in memory, and the good and bad certificates that a server may show.</summary>
internal static class ServerCertificates
{
    private const string ServerUsage = "1.3.6.1.5.5.7.3.1";
    private const string ClientUsage = "1.3.6.1.5.5.7.3.2";

    public static X509Certificate2 Authority { get; } = MakeAuthority("CN=Test CA of clients");

    public static X509Certificate2 OtherAuthority { get; } = MakeAuthority("CN=Nobody's CA");

    /// <summary>For nbd.example, localhost and 127.0.0.1.</summary>
    public static X509Certificate2 Good { get; } = Issue();

    /// <summary>What a server may show that a client must not believe, by what is wrong with it.</summary>
    public static IReadOnlyDictionary<string, X509Certificate2> Bad { get; } = new Dictionary<string, X509Certificate2>
    {
        ["another host"] = Issue(hosts: ["other.example"]),
        ["an address in place of the name"] = Issue(hosts: ["192.0.2.1"]),
        ["no name at all"] = Issue(hosts: []),
        ["expired"] = Issue(from: -20, to: -1),
        ["not yet valid"] = Issue(from: 1, to: 20),
        ["of another authority"] = Issue(authority: OtherAuthority),
        ["self-signed"] = MakeAuthority("CN=nbd.example", hosts: ["nbd.example"]),
        ["for clients only"] = Issue(usage: ClientUsage),
    };

    /// <summary>A client's own.</summary>
    public static X509Certificate2 Client { get; } = Issue(usage: ClientUsage, subject: "CN=alice", hosts: []);

    /// <summary>Trusts the authority and no other.</summary>
    public static SslClientAuthenticationOptions Trusting(string? host = "nbd.example", X509Certificate2? client = null)
    {
        var policy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true,
        };
        policy.CustomTrustStore.Add(Authority);
        return new SslClientAuthenticationOptions
        {
            TargetHost = host,
            CertificateChainPolicy = policy,
            ClientCertificateContext = client is null ? null : SslStreamCertificateContext.Create(client, null, offline: true),
        };
    }

    /// <summary>Writes a directory as nbdkit and libnbd have them: the authority, the server, and the client if need be.</summary>
    public static void Write(string directory, bool withClient)
    {
        File.WriteAllText(Path.Combine(directory, "ca-cert.pem"), Authority.ExportCertificatePem());
        Write(directory, "server", Good);
        if (withClient)
        {
            Write(directory, "client", Client);
        }
    }

    private static void Write(string directory, string name, X509Certificate2 certificate)
    {
        File.WriteAllText(Path.Combine(directory, name + "-cert.pem"), certificate.ExportCertificatePem());
        File.WriteAllText(
            Path.Combine(directory, name + "-key.pem"), certificate.GetRSAPrivateKey()!.ExportPkcs8PrivateKeyPem());
    }

    private static X509Certificate2 MakeAuthority(string name, string[]? hosts = null)
    {
        using var key = RSA.Create(2048);
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, critical: true));
        request.CertificateExtensions.Add(
            new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        AddHosts(request, hosts ?? []);
        return Usable(request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-30), DateTimeOffset.UtcNow.AddDays(30)));
    }

    private static X509Certificate2 Issue(
        X509Certificate2? authority = null,
        string usage = ServerUsage,
        string[]? hosts = null,
        int from = -5,
        int to = 25,
        string subject = "CN=NBD server")
    {
        authority ??= Authority;
        using var key = RSA.Create(2048);
        var request = new CertificateRequest(subject, key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, critical: true));
        request.CertificateExtensions.Add(
            new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature | X509KeyUsageFlags.KeyEncipherment, critical: true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(usage)], critical: false));
        request.CertificateExtensions.Add(
            X509AuthorityKeyIdentifierExtension.CreateFromCertificate(authority, includeKeyIdentifier: true, false));
        AddHosts(request, hosts ?? ["nbd.example", "localhost", "127.0.0.1"]);
        byte[] serial = [1, .. RandomNumberGenerator.GetBytes(7)];
        using X509Certificate2 certificate = request.Create(
            authority, DateTimeOffset.UtcNow.AddDays(from), DateTimeOffset.UtcNow.AddDays(to), serial);
        return Usable(certificate.CopyWithPrivateKey(key));
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

    // A key made for one use is no key for a server on every system.
    private static X509Certificate2 Usable(X509Certificate2 certificate)
        => X509CertificateLoader.LoadPkcs12(
            certificate.Export(X509ContentType.Pkcs12), null, X509KeyStorageFlags.Exportable);
}
