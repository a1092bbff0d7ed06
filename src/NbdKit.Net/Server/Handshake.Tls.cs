using System.Net.Security;
using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_STARTTLS, and what is refused in plain text ("TLS support": NOTLS, FORCEDTLS, SELECTIVETLS).
internal sealed partial class Handshake
{
    // One text for all cases: a client must not learn from it whether an export exists.
    private static readonly (OptionReplyType Error, string Message) TlsIsRequired =
        (OptionReplyType.ErrTlsReqd, "TLS is required");

    private bool IsEncrypted => _connection.Public.IsTls;

    /// <summary>Whether nothing but NBD_OPT_STARTTLS and NBD_OPT_ABORT is possible yet (FORCEDTLS).</summary>
    private bool NeedsTls => _options.Tls is { IsRequired: true } && !IsEncrypted;

    private async ValueTask StartTlsAsync(ReadOnlyMemory<byte> payload)
    {
        if (payload.Length != 0)
        {
            _replies.Error(OptionType.StartTls, OptionReplyType.ErrInvalid, "the option has no payload");
            return;
        }
        if (IsEncrypted)
        {
            _replies.Error(OptionType.StartTls, OptionReplyType.ErrInvalid, "the connection is encrypted already");
            return;
        }
        if (_input.Count > 0)
        {
            // A client waits for the answer. What lies here was put behind its request by somebody else, or will be lost on it.
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, "more was sent in plain text behind NBD_OPT_STARTTLS");
        }
        SslServerAuthenticationOptions authentication;
        try
        {
            authentication = await _options.Tls!.AuthenticationForAsync(_connection.Public, _connection.Aborted)
                .ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // Not an error reply: the client might go on in plain text.
            throw _connection.TlsFailed(e);
        }
        await ForgetNegotiationAsync().ConfigureAwait(false);
        _replies.Ack(OptionType.StartTls);
        await _replies.SendAsync(_connection.Aborted).ConfigureAwait(false);
        await _connection.StartTlsAsync(authentication).ConfigureAwait(false);
        _input = _connection.Input;
        _replies = new OptionReplies(_connection.Transport, _connection.SendStall);
    }

    /// <summary>Nothing that was negotiated in plain text counts: anybody may have put it there.</summary>
    private async ValueTask ForgetNegotiationAsync()
    {
        _form = ReplyForm.Simple;
        _listed = false;
        ForgetMetaContexts();
        await CloseOpenedAsync().ConfigureAwait(false);
    }

    /// <summary>The answer to an option about an export that is out of reach in plain text, or does not exist.</summary>
    private static (OptionReplyType Error, string Message) RefusalInPlainText(OptionType option)
        => option is OptionType.Info or OptionType.Go
            ? TlsIsRequired
            : (OptionReplyType.ErrUnknown, "there is no such export without TLS");

    /// <summary>Whether an export is out of reach in plain text (SELECTIVETLS); the same for one that does not exist.</summary>
    private async ValueTask<bool> NeedsTlsAsync(string name)
    {
        if (IsEncrypted || _options.Tls?.AllowsPlainText is null)
        {
            return false;
        }
        if (name.Length > 0)
        {
            return !MayBePlain(name);
        }
        try
        {
            string? standard = await _connection.Server.Backend.DefaultExportAsync(
                _options.ReadOnly, _connection.Public, _connection.Aborted).ConfigureAwait(false);
            return standard is null || !MayBePlain(standard);
        }
        catch (Exception e) when (!_connection.Aborted.IsCancellationRequested)
        {
            Log.LayerFailed(_connection.Server.Logger, _connection.Server.Backend.Name, "default export", e);
            return true;
        }
    }

    private bool MayBePlain(string name)
    {
        if (IsEncrypted || _options.Tls?.AllowsPlainText is not { } allows)
        {
            return true;
        }
        try
        {
            return allows(name);
        }
        catch (Exception e)
        {
            Log.HookFailed(_connection.Server.Logger, e);
            return false;
        }
    }

    /// <summary>The answer to an option whose payload was thrown away.</summary>
    private (OptionReplyType Error, string Message) TooLarge(OptionType option)
        => option == OptionType.StartTls && _options.Tls is not null
            ? (OptionReplyType.ErrInvalid, "the option has no payload")
            : NeedsTls && option != OptionType.Abort
                ? TlsIsRequired
                : (OptionReplyType.ErrTooBig, "the option is too large");
}
