using System.Security.Cryptography.X509Certificates;
using NbdKit.Server;

namespace NbdKit;

/// <summary>One client of a server: the facts that layers may ask for, and what they may do to it.</summary>
/// <remarks>All members may be used from any thread; they do nothing once the connection has ended.</remarks>
public sealed class NbdConnection
{
    private readonly Action<bool> _disconnect;
    private readonly Action _shutdownServer;

    // A list, for the few layers of a chain: thousands of idle connections keep theirs.
    private DefaultExport? _defaultExports;
    private HashSet<NbdBackend>? _preconnected;

    internal NbdConnection(
        long id, NbdPeer peer, CancellationToken aborted, Action<bool> disconnect, Action shutdownServer)
    {
        Id = id;
        Peer = peer;
        Aborted = aborted;
        _disconnect = disconnect;
        _shutdownServer = shutdownServer;
    }

    /// <summary>The number of this connection, from 1, unique within its server. It is in every log message.</summary>
    public long Id { get; }

    /// <summary>Who is at the other end (nbdkit's <c>nbdkit_peer_name</c>, <c>_pid</c>, <c>_uid</c>, <c>_gid</c>).</summary>
    public NbdPeer Peer { get; }

    /// <summary>Whether the connection is encrypted by now (nbdkit's <c>nbdkit_is_tls</c>).</summary>
    public bool IsTls { get; internal set; }

    /// <summary>
    /// The certificate that the client showed, or null: in plain text, and if it showed none. It was found valid as
    /// <see cref="NbdServerTls"/> describes; over a TLS stream that the host brought along, as the host saw fit.
    /// </summary>
    public X509Certificate2? PeerCertificate { get; private set; }

    /// <summary>
    /// The subject of <see cref="PeerCertificate"/> as RFC 4514 writes it, such as <c>CN=alice,O=Example,C=DE</c>, or null
    /// (nbdkit's <c>nbdkit_peer_tls_dn</c>).
    /// </summary>
    public string? PeerSubject { get; private set; }

    /// <summary>
    /// The issuer of <see cref="PeerCertificate"/> as RFC 4514 writes it, or null (nbdkit's <c>nbdkit_peer_tls_issuer_dn</c>).
    /// </summary>
    public string? PeerIssuer { get; private set; }

    /// <summary>
    /// The name of the export that the client opened last, as it was sent, or null before that
    /// (nbdkit's <c>nbdkit_export_name</c>).
    /// </summary>
    public string? ExportName { get; internal set; }

    /// <summary>Fires when the client is gone, is cut off, or the server stops hard.</summary>
    public CancellationToken Aborted { get; }

    /// <summary>The chains inside plugins that were asked whether this client may connect, and did not refuse.</summary>
    internal HashSet<NbdBackend> Preconnected => LazyInitializer.EnsureInitialized(ref _preconnected, () => []);

    /// <summary>Ends this connection (nbdkit's <c>nbdkit_disconnect</c>).</summary>
    /// <param name="force">
    /// True: at once, nothing more is sent. False: requests that were received are finished and answered, later ones get
    /// ESHUTDOWN.
    /// </param>
    public void Disconnect(bool force) => _disconnect(force);

    /// <summary>Asks the server to stop in order, without waiting for it (nbdkit's <c>nbdkit_shutdown</c>).</summary>
    public void ShutdownServer() => _shutdownServer();

    /// <summary>From now on the connection is encrypted; nothing that was found out in plain text is known any more.</summary>
    internal void BecomeEncrypted(X509Certificate? certificate)
    {
        Volatile.Write(ref _defaultExports, null);
        ExportName = null;
        if (certificate is not null)
        {
            // A copy, which outlives the TLS session.
            PeerCertificate = X509CertificateLoader.LoadCertificate(certificate.GetRawCertData());
            PeerSubject = DistinguishedName.Text(PeerCertificate.SubjectName);
            PeerIssuer = DistinguishedName.Text(PeerCertificate.IssuerName);
        }
        IsTls = true;
    }

    /// <summary>The default export of a layer, which is asked for once per connection.</summary>
    internal bool TryGetDefaultExport(NbdBackend layer, out string? name)
    {
        name = null;
        for (DefaultExport? known = Volatile.Read(ref _defaultExports); known is not null; known = known.Next)
        {
            if (known.Layer == layer)
            {
                name = known.Name;
                return true;
            }
        }
        return false;
    }

    internal void RememberDefaultExport(NbdBackend layer, string? name)
    {
        DefaultExport? rest;
        do
        {
            rest = Volatile.Read(ref _defaultExports);
        }
        while (Interlocked.CompareExchange(ref _defaultExports, new DefaultExport(layer, name, rest), rest) != rest);
    }

    private sealed record DefaultExport(NbdBackend Layer, string? Name, DefaultExport? Next);
}
