using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Hostile;

/// <summary>The options of each way to connect.</summary>
internal static class ClientVariants
{
    /// <summary>How the server serves.</summary>
    public static NbdServerOptions Serving(this ClientVariant variant)
        => new() { Tls = variant == ClientVariant.Encrypted ? new NbdServerTls(TestCertificates.Server) { IsRequired = true } : null };

    /// <summary>How a client connects, and how long it waits for a reply.</summary>
    public static NbdClientOptions Connecting(this ClientVariant variant, TimeSpan requestTimeout)
    {
        var options = new NbdClientOptions
        {
            RequestTimeout = requestTimeout,
            ConnectTimeout = TimeSpan.FromSeconds(20),
            HandshakeTimeout = TimeSpan.FromSeconds(20),
        };
        return variant switch
        {
            ClientVariant.Encrypted => options with { Tls = NbdTlsPolicy.Require, TlsAuthentication = TestCertificates.Client() },
            ClientVariant.Simple => options with { RequestStructuredReplies = false, RequestExtendedHeaders = false, MetaContexts = [] },
            _ => options,
        };
    }
}
