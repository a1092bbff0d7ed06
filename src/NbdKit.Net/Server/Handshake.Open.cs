using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_EXPORT_NAME, NBD_OPT_INFO and NBD_OPT_GO: the options that open an export.
internal sealed partial class Handshake
{
    private async ValueTask<ExportSession> ExportNameAsync(ReadOnlyMemory<byte> payload)
    {
        if (_connection.RefusesRequests)
        {
            throw new ConnectionEndedException(_connection.Refusal.Reason, _connection.Refusal.Detail);
        }
        if (_form == ReplyForm.Extended)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, "the client sent NBD_OPT_EXPORT_NAME after it had negotiated extended headers");
        }
        if (!WireString.TryDecode(payload.Span, out string name))
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, "the client sent an export name that is not valid");
        }
        if (NeedsTls || await NeedsTlsAsync(name).ConfigureAwait(false))
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.TlsRequired, $"the export '{LogText.Clean(name)}' is served over TLS only");
        }
        NextContext context;
        try
        {
            context = TakeOpened(name) ?? await OpenAsync(name).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not ConnectionEndedException)
        {
            // The option has no reply that says no.
            throw new ConnectionEndedException(
                NbdDisconnectReason.ExportUnavailable, $"the export '{LogText.Clean(name)}' cannot be opened");
        }
        ExportSession session = Session(context, name);
        // size 64, transmission flags 16, then 124 bytes of zero unless the client does without.
        Span<byte> reply = _replies.Raw(_noZeroes ? 10 : 134);
        BinaryPrimitives.WriteInt64BigEndian(reply, session.Info.Size);
        BinaryPrimitives.WriteUInt16BigEndian(reply[8..], (ushort)session.Flags);
        await EnterAsync(session).ConfigureAwait(false);
        return session;
    }

    private async ValueTask<ExportSession?> InfoOrGoAsync(OptionType option, ReadOnlyMemory<byte> payload)
    {
        InfoRequest? request = InfoRequest.Read(payload.Span, out string fault);
        if (request is null)
        {
            _replies.Error(option, OptionReplyType.ErrInvalid, fault);
            return null;
        }
        bool isOpen = _opened is not null && _openedName == request.Name;
        NextContext? context = await OpenToAskAsync(option, request.Name).ConfigureAwait(false);
        if (context is null)
        {
            return null;
        }
        ExportSession session = Session(context, request.Name);
        AddInformation(option, request, session);
        _replies.Ack(option);
        if (option == OptionType.Go)
        {
            TakeOpened(request.Name);
            await EnterAsync(session).ConfigureAwait(false);
            return session;
        }
        if (!isOpen)
        {
            await CloseOpenedAsync().ConfigureAwait(false);
        }
        return null;
    }

    private void AddInformation(OptionType option, InfoRequest request, ExportSession session)
    {
        NbdExportInfo info = session.Info;
        _replies.InfoExport(option, info.Size, session.Flags);
        foreach (InfoType type in request.Types)
        {
            switch (type)
            {
                case InfoType.Name:
                    _replies.InfoText(option, type, info.CanonicalName ?? session.Context.ExportName);
                    break;
                case InfoType.Description when info.Description is not null:
                    _replies.InfoText(option, type, info.Description);
                    break;
                case InfoType.BlockSize when info.BlockSize.IsKnown:
                    _replies.InfoBlockSize(option, info.BlockSize, _options.MaxPayload);
                    break;
            }
        }
    }

    private ExportSession Session(NextContext context, string name)
    {
        List<string> contexts = SelectedFor(name, context.Info);
        ThreadModel model = _connection.Server.Backend.ThreadModel;
        return new ExportSession(
            context, ExportSession.FlagsFor(context.Info, model, _form, contexts.Count > 0), _form, contexts)
        {
            RequirePayloadFlag = _options.RequirePayloadFlag,
        };
    }

    /// <summary>Sends the reply that enters transmission; the context is closed if that fails.</summary>
    private async ValueTask EnterAsync(ExportSession session)
    {
        try
        {
            await _replies.SendAsync(_connection.Aborted).ConfigureAwait(false);
        }
        catch
        {
            await session.Context.CloseAsync().ConfigureAwait(false);
            throw;
        }
        Enter(session);
    }

    private void Enter(ExportSession session)
    {
        // The transmission counts requests itself, and ends them before the context is finalized.
        session.Context.CountsCalls = false;
        if (_connection.Server.Logger.IsEnabled(LogLevel.Information))
        {
            Log.ExportOpened(
                _connection.Server.Logger, _connection.Public.Id, LogText.Clean(session.Context.ExportName), session.Info.Size,
                session.Flags.ToString());
        }
    }
}
