using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Tests.Testing;

/// <summary>A client's certificate, and the many that vouch for it one after the other.</summary>
internal sealed class CertificateChain
{
    /// <summary>Makes a chain.</summary>
    /// <param name="length">The certificates, with the client's own and without the authority's.</param>
    /// <param name="authority">What the first is issued by.</param>
    public CertificateChain(int length, X509Certificate2 authority)
    {
        DateTimeOffset from = DateTimeOffset.UtcNow.AddDays(-9);
        DateTimeOffset to = from.AddDays(200);
        X509Certificate2 issuer = authority;
        for (int i = 1; i <= length; i++)
        {
            issuer = Issue(issuer, i, isLast: i == length, from, to);
            if (i < length)
            {
                Between.Add(issuer);
            }
        }
        Client = issuer;
    }

    public X509Certificate2 Client { get; }

    /// <summary>Those between the authority and the client.</summary>
    public X509Certificate2Collection Between { get; } = [];

    /// <summary>Shows all of it.</summary>
    public SslClientAuthenticationOptions Show(SslClientAuthenticationOptions options)
    {
        options.ClientCertificateContext = SslStreamCertificateContext.Create(Client, Between, offline: true);
        return options;
    }

    private static X509Certificate2 Issue(X509Certificate2 issuer, int number, bool isLast, DateTimeOffset from, DateTimeOffset to)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN=link {number}", key, HashAlgorithmName.SHA256);
        X509KeyUsageFlags usage = isLast ? X509KeyUsageFlags.DigitalSignature : X509KeyUsageFlags.KeyCertSign;
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(!isLast, false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(usage, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        request.CertificateExtensions.Add(
            X509AuthorityKeyIdentifierExtension.CreateFromCertificate(issuer, includeKeyIdentifier: true, false));
        if (isLast)
        {
            request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(TestCertificates.ClientUsage)], critical: false));
        }
        using X509Certificate2 certificate = request.Create(issuer, from, to, [1, (byte)number]);
        return certificate.CopyWithPrivateKey(key);
    }
}
