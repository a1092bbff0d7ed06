using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Server;

/// <summary>Makes what <see cref="SslStream"/> gets out of what the host said.</summary>
internal static class TlsAuthentication
{
    // Extended key usage "TLS client authentication" (RFC 5280, 4.2.1.12).
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2";

    /// <summary>A copy of the host's options, with what this library does not leave to chance.</summary>
    public static SslServerAuthenticationOptions For(NbdServerTls tls, SslServerAuthenticationOptions given)
    {
        RequireCertificate(given);
        var options = new SslServerAuthenticationOptions
        {
            AllowRenegotiation = false,
            // A connection lasts: a ticket for the next one is worth nothing, and would have to be checked anew.
            AllowTlsResume = false,
            ApplicationProtocols = given.ApplicationProtocols,
            CertificateChainPolicy = given.CertificateChainPolicy,
            CertificateRevocationCheckMode = given.CertificateRevocationCheckMode,
            CipherSuitesPolicy = given.CipherSuitesPolicy,
            ClientCertificateRequired = given.ClientCertificateRequired,
            EnabledSslProtocols = Protocols(given),
            RemoteCertificateValidationCallback = given.RemoteCertificateValidationCallback,
            ServerCertificate = given.ServerCertificate,
            ServerCertificateContext = given.ServerCertificateContext,
            ServerCertificateSelectionCallback = given.ServerCertificateSelectionCallback,
        };
        if (tls.ClientCertificates != NbdClientCertificates.None)
        {
            options.ClientCertificateRequired = true;
            options.CertificateChainPolicy = ChainPolicy(tls, given);
            options.RemoteCertificateValidationCallback = (sender, certificate, chain, errors) =>
                IsAccepted(tls, certificate, chain, errors)
                && given.RemoteCertificateValidationCallback?.Invoke(sender, certificate, chain, errors) != false;
        }
        return options;
    }

    /// <summary>The protocols that are spoken.</summary>
    /// <exception cref="ArgumentException">None is left.</exception>
    public static SslProtocols Protocols(SslServerAuthenticationOptions given)
    {
        const SslProtocols Modern = SslProtocols.Tls12 | SslProtocols.Tls13;
        SslProtocols asked = given.EnabledSslProtocols == SslProtocols.None ? Modern : given.EnabledSslProtocols & Modern;
        return asked != SslProtocols.None
            ? asked
            : throw new ArgumentException("The protocols allow neither TLS 1.2 nor TLS 1.3; nothing older is spoken.", nameof(given));
    }

    /// <summary>Refuses options without any certificate.</summary>
    /// <exception cref="ArgumentException">There is none.</exception>
    public static void RequireCertificate(SslServerAuthenticationOptions given)
    {
        if (given.ServerCertificate is null
            && given.ServerCertificateContext is null
            && given.ServerCertificateSelectionCallback is null)
        {
            throw new ArgumentException("The authentication options name no certificate.", nameof(given));
        }
    }

    private static X509ChainPolicy? ChainPolicy(NbdServerTls tls, SslServerAuthenticationOptions given)
    {
        if (tls.ClientAuthorities is null)
        {
            return given.CertificateChainPolicy;
        }
        var policy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true,
        };
        policy.ApplicationPolicy.Add(new Oid(ClientAuthentication));
        foreach (X509Certificate2 authority in tls.ClientAuthorities)
        {
            bool isRoot = authority.SubjectName.RawData.AsSpan().SequenceEqual(authority.IssuerName.RawData);
            (isRoot ? policy.CustomTrustStore : policy.ExtraStore).Add(authority);
        }
        return policy;
    }

    private static bool IsAccepted(NbdServerTls tls, X509Certificate? certificate, X509Chain? chain, SslPolicyErrors errors)
    {
        if (certificate is null)
        {
            return tls.ClientCertificates != NbdClientCertificates.Required;
        }
        // A server compares no name.
        return (errors & ~SslPolicyErrors.RemoteCertificateNameMismatch) == SslPolicyErrors.None
            && chain is not null
            && !tls.Revocations.Any(list => chain.ChainElements.Any(element => list.Names(element.Certificate)));
    }
}
