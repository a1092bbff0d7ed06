using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Server;

namespace NbdKit;

/// <summary>How a server encrypts its connections (NBD_OPT_STARTTLS; "TLS support" in the protocol text, nbdkit-tls(1)).</summary>
/// <remarks>
/// <para>
/// TLS is required unless <see cref="IsRequired"/> says otherwise, because whoever can change what travels can make a client
/// believe that there is no TLS. TLS 1.2 and 1.3 are spoken, nothing older, and no pre-shared keys: .NET has none. Clients
/// cannot renegotiate or resume.
/// </para>
/// <para>
/// A valid client certificate proves that an authority of <see cref="ClientAuthorities"/> issued it and that the client has its
/// key, and nothing else: no name in it is compared with anything. Layers see it in <see cref="NbdConnection.PeerCertificate"/>,
/// and the filter <c>ip</c> can choose by name.
/// </para>
/// </remarks>
public sealed partial record NbdServerTls
{
    private readonly SslServerAuthenticationOptions? _authentication;
    private readonly Func<NbdConnection, CancellationToken, ValueTask<SslServerAuthenticationOptions>>? _choose;

    /// <summary>Encrypts with one certificate.</summary>
    /// <param name="certificate">The certificate with its private key. The caller disposes of it, after the server.</param>
    /// <param name="intermediates">The certificates between it and its root, to be sent along; none by default.</param>
    /// <exception cref="ArgumentException">The certificate has no private key.</exception>
    public NbdServerTls(X509Certificate2 certificate, X509Certificate2Collection? intermediates = null)
        : this(AuthenticationWith(certificate, intermediates))
    {
    }

    /// <summary>Encrypts as the options of <see cref="SslStream"/> say.</summary>
    /// <param name="authentication">
    /// What is handed to <see cref="SslStream"/>; copied when a client comes, so it may be changed while the server serves. Protocols
    /// older than TLS 1.2 and renegotiation are left out of the copy. If <see cref="ClientCertificates"/> asks for certificates,
    /// its callback is asked after the server's own check and can only refuse more.
    /// </param>
    /// <exception cref="ArgumentException">It allows neither TLS 1.2 nor 1.3, or names no certificate.</exception>
    public NbdServerTls(SslServerAuthenticationOptions authentication)
    {
        ArgumentNullException.ThrowIfNull(authentication);
        _ = TlsAuthentication.Protocols(authentication);
        TlsAuthentication.RequireCertificate(authentication);
        _authentication = authentication;
    }

    /// <summary>Encrypts as a callback says for each client, so that certificates can be replaced while the server serves.</summary>
    /// <param name="choose">
    /// Called when a client asks for TLS, on a thread of the pool, with the client and a token that fires when it is gone. Its time
    /// is part of <see cref="NbdServerOptions.HandshakeTimeout"/>. If it throws, that connection ends. What it returns is treated
    /// like the options of the other constructor; returning the same object again is cheap.
    /// </param>
    public NbdServerTls(Func<NbdConnection, CancellationToken, ValueTask<SslServerAuthenticationOptions>> choose)
    {
        ArgumentNullException.ThrowIfNull(choose);
        _choose = choose;
    }

    /// <summary>
    /// Whether clients must encrypt: before they did, every option but NBD_OPT_STARTTLS and NBD_OPT_ABORT is refused. If false
    /// they may choose.
    /// </summary>
    /// <value>True by default.</value>
    public bool IsRequired { get; init; } = true;

    /// <summary>
    /// Which exports may be seen and opened in plain text, if <see cref="IsRequired"/> is false: called with the name of an
    /// export ("" replaced by the default export) and returns true if it may. For all others, whether they exist or not, plain
    /// text gets the same answer by the same way, NBD_REP_ERR_TLS_REQD, and no layer is asked to open them. Called on any thread,
    /// must return soon; if it throws the export needs TLS.
    /// </summary>
    /// <value>Null by default: all exports.</value>
    public Func<string, bool>? AllowsPlainText { get; init; }

    /// <summary>Whether clients are asked for certificates.</summary>
    /// <value>
    /// <see cref="NbdClientCertificates.None"/> by default: then the server does not ask, unless the authentication options do.
    /// </value>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of the enumeration.</exception>
    public NbdClientCertificates ClientCertificates
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>
    /// The authorities that client certificates must come from: root certificates, and any between them and the clients'. Only heeded
    /// where <see cref="ClientCertificates"/> asks for certificates.
    /// </summary>
    /// <value>Null by default: those that the system trusts. The caller disposes of them, after the server.</value>
    public X509Certificate2Collection? ClientAuthorities { get; init; }

    /// <summary>
    /// Revocation lists (CRL) in DER: a client certificate that the list of its issuer names is refused. The lists are taken as
    /// they are, without a check of their signatures or dates. Nothing is ever looked up on the network. Only heeded where
    /// <see cref="ClientCertificates"/> asks for certificates.
    /// </summary>
    /// <value>Empty by default.</value>
    /// <exception cref="ArgumentException">One of them is no revocation list.</exception>
    public IReadOnlyList<ReadOnlyMemory<byte>> ClientRevocationLists
    {
        get;
        init
        {
            field = value;
            Revocations = [.. value.Select(RevocationList.Read)];
        }
    } = [];

    internal IReadOnlyList<RevocationList> Revocations { get; private init; } = [];

    /// <summary>What one client gets.</summary>
    internal async ValueTask<SslServerAuthenticationOptions> AuthenticationForAsync(
        NbdConnection connection, CancellationToken cancellationToken)
    {
        SslServerAuthenticationOptions given = _authentication
            ?? await _choose!(connection, cancellationToken).AsTask().WaitAsync(cancellationToken).ConfigureAwait(false)
            ?? throw new AuthenticationException("no authentication options were returned for this client");
        return TlsAuthentication.For(this, given);
    }

    private static SslServerAuthenticationOptions AuthenticationWith(
        X509Certificate2 certificate, X509Certificate2Collection? intermediates)
    {
        ArgumentNullException.ThrowIfNull(certificate);
        return certificate.HasPrivateKey
            ? new SslServerAuthenticationOptions
            {
                // Offline: nothing is fetched from the network to complete the chain.
                ServerCertificateContext = SslStreamCertificateContext.Create(certificate, intermediates, offline: true),
            }
            : throw new ArgumentException("The certificate has no private key.", nameof(certificate));
    }
}
