using System.Net.Security;
using NbdKit.Transports;

namespace NbdKit.Server;

// From plain text to TLS.
internal sealed partial class Connection
{
    /// <summary>
    /// Makes the TLS handshake. From here on everything goes through TLS; what read and wrote plain text is replaced and must not
    /// be used any more.
    /// </summary>
    /// <exception cref="ConnectionEndedException">It failed.</exception>
    public async ValueTask StartTlsAsync(SslServerAuthenticationOptions options)
    {
        Input.Close();
        var tls = new TlsTransport(_transport, _server.Slabs, RecordStall, Receiving, Aborted);
        // Whoever aborts reaches the same transport below, before and after this.
        _transport = tls;
        try
        {
            await tls.AuthenticateAsync(options).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            throw TlsFailed(e);
        }
        Public.BecomeEncrypted(tls.Tls.RemoteCertificate);
        Input = new InputReader(tls, _server.Slabs, ReceiveStall);
        Replies = new ReplyWriter(tls, _server.Slabs, _server.Payloads, _server.Loans, Budget, SendStall);
        Log.Encrypted(
            Logger, Public.Id, tls.Tls.SslProtocol.ToString(), tls.Tls.NegotiatedCipherSuite.ToString(),
            LogText.Clean(Public.PeerSubject ?? "", 400));
    }

    /// <summary>The end of a connection that could not be encrypted.</summary>
    public ConnectionEndedException TlsFailed(Exception cause)
    {
        // What ended the connection before made TLS fail, and is the reason.
        if (_end is null)
        {
            Log.TlsFailed(Logger, Public.Id, LogText.Details(cause), LogText.IfClean(cause));
        }
        return new ConnectionEndedException(
            NbdDisconnectReason.TlsFailed, "TLS could not be established: " + LogText.Message(cause));
    }
}
