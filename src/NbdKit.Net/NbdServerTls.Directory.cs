using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Server;

namespace NbdKit;

// Certificates in a directory.
public sealed partial record NbdServerTls
{
    private const string RevocationLabel = "X509 CRL";

    /// <summary>
    /// Reads a directory laid out as nbdkit's: <c>server-cert.pem</c> (the certificate, and any between it and its root),
    /// <c>server-key.pem</c> (its private key, without a password), <c>ca-cert.pem</c> (<see cref="ClientAuthorities"/>) and, if
    /// there is one, <c>ca-crl.pem</c> (<see cref="ClientRevocationLists"/>).
    /// </summary>
    /// <param name="directory">The directory.</param>
    /// <returns>TLS with that certificate. What was read is not read again.</returns>
    /// <exception cref="IOException">A file is missing or cannot be read.</exception>
    /// <exception cref="UnauthorizedAccessException">A file may not be read.</exception>
    /// <exception cref="ArgumentException">A file does not hold what it should; the message names it.</exception>
    public static NbdServerTls FromDirectory(string directory)
    {
        ArgumentException.ThrowIfNullOrEmpty(directory);
        string certificatePath = Path.Combine(directory, "server-cert.pem");
        string keyPath = Path.Combine(directory, "server-key.pem");
        X509Certificate2Collection chain = Certificates(certificatePath);
        string key = EcPrivateKey.Normalize(File.ReadAllText(keyPath));
        X509Certificate2Collection authorities = Certificates(Path.Combine(directory, "ca-cert.pem"));
        using X509Certificate2 first = chain[0];
        X509Certificate2 certificate;
        try
        {
            certificate = X509Certificate2.CreateFromPem(first.ExportCertificatePem(), key);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new ArgumentException($"{keyPath} is not the private key of {certificatePath}: {e.Message}", nameof(directory), e);
        }
        if (OperatingSystem.IsWindows())
        {
            // There a key that was never stored cannot be used for TLS.
            using X509Certificate2 unstored = certificate;
            certificate = X509CertificateLoader.LoadPkcs12(unstored.Export(X509ContentType.Pfx), null);
        }
        chain.RemoveAt(0);
        return new NbdServerTls(certificate, chain)
        {
            ClientAuthorities = authorities,
            ClientRevocationLists = RevocationLists(Path.Combine(directory, "ca-crl.pem")),
        };
    }

    private static X509Certificate2Collection Certificates(string path)
    {
        string text = File.ReadAllText(path);
        var certificates = new X509Certificate2Collection();
        try
        {
            certificates.ImportFromPem(text);
        }
        catch (CryptographicException e)
        {
            throw new ArgumentException($"{path} holds something that is no certificate: {e.Message}", nameof(path), e);
        }
        return certificates.Count > 0
            ? certificates
            : throw new ArgumentException($"{path} holds no certificate in PEM form.", nameof(path));
    }

    private static List<ReadOnlyMemory<byte>> RevocationLists(string path)
    {
        var lists = new List<ReadOnlyMemory<byte>>();
        if (!File.Exists(path))
        {
            return lists;
        }
        ReadOnlySpan<char> text = File.ReadAllText(path);
        while (PemEncoding.TryFind(text, out PemFields fields))
        {
            if (text[fields.Label] is RevocationLabel)
            {
                byte[] list = new byte[fields.DecodedDataLength];
                _ = Convert.TryFromBase64Chars(text[fields.Base64Data], list, out _);
                lists.Add(list);
            }
            text = text[fields.Location.End..];
        }
        // An empty file would otherwise mean that nothing is revoked.
        return lists.Count > 0 ? lists : throw new ArgumentException($"{path} holds no revocation list in PEM form.", nameof(path));
    }
}
