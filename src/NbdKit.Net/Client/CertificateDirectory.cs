using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Client;

/// <summary>A directory of certificates as nbdkit, libnbd and qemu have them.</summary>
internal static class CertificateDirectory
{
    private const string Authorities = "ca-cert.pem";
    private const string Certificate = "client-cert.pem";
    private const string Key = "client-key.pem";

    /// <summary>Trusts its authorities and no others, and authenticates the client if it has a certificate.</summary>
    /// <exception cref="UriFormatException">Something in it cannot be read.</exception>
    public static void Load(string directory, SslClientAuthenticationOptions authentication)
    {
        try
        {
            var policy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            policy.CustomTrustStore.ImportFromPemFile(Path.Combine(directory, Authorities));
            authentication.CertificateChainPolicy = policy;
            string certificate = Path.Combine(directory, Certificate);
            if (File.Exists(certificate))
            {
                authentication.ClientCertificateContext = SslStreamCertificateContext.Create(
                    X509Certificate2.CreateFromPemFile(certificate, Path.Combine(directory, Key)), null, offline: true);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException or ArgumentException)
        {
            throw new UriFormatException($"The NBD URI names certificates that cannot be read: {e.Message}", e);
        }
    }
}
