using System.Net.Security;
using System.Security.Authentication;

namespace NbdKit.Client;

/// <summary>How a client authenticates its server, and itself.</summary>
internal static class ClientTls
{
    private const SslProtocols Allowed = SslProtocols.Tls12 | SslProtocols.Tls13;

    /// <summary>The options for one connection: the host's, completed with what it left open and never less strict.</summary>
    /// <exception cref="NbdClientException">There is no name that the server could prove, or no version of TLS.</exception>
    public static SslClientAuthenticationOptions AuthenticationFor(NbdClientOptions options, string? host)
    {
        SslClientAuthenticationOptions given = options.TlsAuthentication ?? new();
        string? name = string.IsNullOrEmpty(given.TargetHost) ? host : given.TargetHost;
        if (name is null && given.RemoteCertificateValidationCallback is null)
        {
            throw new NbdClientException(
                NbdClientError.TlsFailed,
                "TLS needs the name that the server's certificate must carry: nothing was connected to that has a host name");
        }
        SslProtocols protocols = given.EnabledSslProtocols == SslProtocols.None ? Allowed : given.EnabledSslProtocols & Allowed;
        if (protocols == SslProtocols.None)
        {
            throw new NbdClientException(NbdClientError.TlsFailed, "TLS before version 1.2 is not supported");
        }
        SslClientAuthenticationOptions authentication = Copy(given);
        authentication.TargetHost = name ?? "";
        authentication.EnabledSslProtocols = protocols;
        return authentication;
    }

    /// <summary>The options of the host, or the defaults, with what a URI says in their place.</summary>
    /// <exception cref="UriFormatException">The URI names certificates that cannot be read.</exception>
    public static SslClientAuthenticationOptions With(SslClientAuthenticationOptions? options, NbdUri uri)
    {
        SslClientAuthenticationOptions authentication = Copy(options ?? new());
        if (uri.TlsHostName is not null)
        {
            authentication.TargetHost = uri.TlsHostName;
        }
        if (!uri.TlsVerifyPeer)
        {
            authentication.RemoteCertificateValidationCallback = static (_, _, _, _) => true;
        }
        if (uri.TlsCertificates is { } directory)
        {
            CertificateDirectory.Load(directory, authentication);
        }
        return authentication;
    }

    private static SslClientAuthenticationOptions Copy(SslClientAuthenticationOptions given)
    {
        var copy = new SslClientAuthenticationOptions
        {
            TargetHost = given.TargetHost,
            EnabledSslProtocols = given.EnabledSslProtocols,
            EncryptionPolicy = EncryptionPolicy.RequireEncryption,
            AllowRenegotiation = false,
            AllowTlsResume = given.AllowTlsResume,
            ApplicationProtocols = given.ApplicationProtocols,
            CertificateChainPolicy = given.CertificateChainPolicy,
            CertificateRevocationCheckMode = given.CertificateRevocationCheckMode,
            CipherSuitesPolicy = given.CipherSuitesPolicy,
            ClientCertificateContext = given.ClientCertificateContext,
            ClientCertificates = given.ClientCertificates,
            LocalCertificateSelectionCallback = given.LocalCertificateSelectionCallback,
            RemoteCertificateValidationCallback = given.RemoteCertificateValidationCallback,
        };
        if (OperatingSystem.IsLinux() || OperatingSystem.IsWindows())
        {
            copy.AllowRsaPkcs1Padding = given.AllowRsaPkcs1Padding;
            copy.AllowRsaPssPadding = given.AllowRsaPssPadding;
        }
        return copy;
    }
}
