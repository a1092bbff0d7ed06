using System.Net.Security;
using System.Security.Authentication;
using NbdKit.Protocol;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>NBD_OPT_STARTTLS.</summary>
internal sealed partial class ClientHandshake
{
    private async Task StartTlsAsync(SslClientAuthenticationOptions authentication)
    {
        if (!_fixedNewstyle)
        {
            return;
        }
        OptionRefusal? refusal = await AskAsync(OptionType.StartTls, default, OptionReplyType.Ack, 0, 0, null)
            .ConfigureAwait(false);
        if (refusal is not null)
        {
            if (_options.Tls == NbdTlsPolicy.Require)
            {
                throw new NbdClientException(NbdClientError.TlsUnavailable, refusal.ToString());
            }
            return;
        }
        // From here on this connection is encrypted or it is nothing: it must not be left in plain text.
        _haggling = false;
        Transport plain = _transport;
        var stream = new SslStream(new TlsBaseStream(plain), leaveInnerStreamOpen: true);
        try
        {
            await stream.AuthenticateAsClientAsync(authentication, _token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is AuthenticationException || IsTransportFault(e))
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            throw new NbdClientException(NbdClientError.TlsFailed, $"TLS failed: {e.Message}", e);
        }
        _transport = new ClientTlsTransport(stream, plain);
        _isTls = true;
        _haggling = true;
        if (_cut)
        {
            // Cut while one transport took the place of the other.
            Cut();
        }
        ClientLog.Encrypted(_logger, stream.SslProtocol.ToString(), stream.NegotiatedCipherSuite.ToString());
    }
}
