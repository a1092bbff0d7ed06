using System.Net.Security;

namespace NbdKit.Tests.Testing;

// NBD_OPT_STARTTLS.
internal sealed partial class WireClient
{
    /// <summary>What came since TLS began, or null before.</summary>
    public TapStream? Tap { get; private init; }

    /// <summary>The TLS session, or null before.</summary>
    public SslStream? Tls { get; private init; }

    /// <summary>Asks for TLS and makes the handshake.</summary>
    /// <returns>The client inside TLS; this one must not be used any more, but to cut the connection.</returns>
    public async Task<WireClient> StartTlsAsync(SslClientAuthenticationOptions? options = null)
    {
        await ExpectOptAsync(Rep.Ack, Opt.StartTls);
        return await AuthenticateAsync(options);
    }

    /// <summary>Makes the TLS handshake.</summary>
    public async Task<WireClient> AuthenticateAsync(SslClientAuthenticationOptions? options = null)
    {
        var tap = new TapStream(pipe);
        var tls = new SslStream(tap, leaveInnerStreamOpen: true);
        await tls.AuthenticateAsClientAsync(options ?? TestCertificates.Client()).WaitAsync(Deadline);
        return new WireClient(new TlsPipe(tls), Ended) { Tap = tap, Tls = tls };
    }

    /// <summary>Asks for TLS, and asserts that it fails and that the server says so.</summary>
    public async Task ExpectNoTlsAsync(SslClientAuthenticationOptions? options = null)
    {
        await ExpectOptAsync(Rep.Ack, Opt.StartTls);
        try
        {
            WireClient inside = await AuthenticateAsync(options);
            // In TLS 1.3 a client learns only from the next record that its certificate was refused.
            byte[] rest = await inside.ReadToEndAsync();
            Assert.That(rest, Is.Empty);
        }
        catch (Exception e) when (e is IOException or System.Security.Authentication.AuthenticationException)
        {
            // As it should be.
        }
        await ExpectEndAsync(NbdDisconnectReason.TlsFailed);
    }
}
