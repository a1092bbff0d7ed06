using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_EXPORT_NAME, NBD_OPT_INFO and NBD_OPT_GO: the options that open an export.
internal sealed partial class Handshake
{
    private async ValueTask<ExportSession> ExportNameAsync(byte[] payload)
    {
        if (_connection.RefusesRequests)
        {
            throw new ConnectionEndedException(_connection.Refusal.Reason, _connection.Refusal.Detail);
        }
        if (!WireString.TryDecode(payload, out string name))
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, "the client sent an export name that is not valid");
        }
        NextContext context;
        try
        {
            context = await OpenAsync(name).ConfigureAwait(false);
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

    private async ValueTask<ExportSession?> InfoOrGoAsync(OptionType option, byte[] payload)
    {
        InfoRequest? request = InfoRequest.Read(payload, out string fault);
        if (request is null)
        {
            _replies.Error(option, OptionReplyType.ErrInvalid, fault);
            return null;
        }
        if (option == OptionType.Info && _opensLeft <= 0)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.LimitExceeded, "the client asked about exports too often");
        }
        NextContext context;
        try
        {
            context = await OpenAsync(request.Name).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not ConnectionEndedException && !_connection.Aborted.IsCancellationRequested)
        {
            OptionReplyType error = e switch
            {
                NbdException { Error: NbdError.Shutdown } => OptionReplyType.ErrShutdown,
                NbdException { Error: NbdError.PermissionDenied } => OptionReplyType.ErrPolicy,
                _ => OptionReplyType.ErrUnknown,
            };
            _replies.Error(option, error, e is NbdException ? e.Message : "the export cannot be opened");
            return null;
        }
        ExportSession session = Session(context, request.Name);
        AddInformation(option, request, session);
        _replies.Ack(option);
        if (option == OptionType.Go)
        {
            await EnterAsync(session).ConfigureAwait(false);
            return session;
        }
        _opensLeft--;
        await context.CloseAsync().ConfigureAwait(false);
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

    private ExportSession Session(NextContext context, string name) => new(
        context,
        ExportSession.FlagsFor(context.Info, _connection.Server.Backend.ThreadModel, _structuredReplies),
        _structuredReplies,
        // Contexts count only for the export that they were selected for.
        _metaExport == name ? [.. _metaContexts] : []);

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
        // The transmission counts requests itself, and ends them before the context is finalized.
        session.Context.CountsCalls = false;
        if (_connection.Server.Logger.IsEnabled(LogLevel.Information))
        {
            Log.ExportOpened(
                _connection.Server.Logger, _connection.Public.Id, LogText.Clean(session.Context.ExportName), session.Info.Size,
                session.Flags.ToString());
        }
    }

    private async ValueTask<NextContext> OpenAsync(string name)
    {
        _connection.Public.ExportName = name;
        using var limit = new CancellationTokenSource(_options.OpenTimeout, _options.TimeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, _connection.Aborted);
        _connection.BeginOpening();
        Task<NextContext> opening = OpenAndPrepareAsync(name, either.Token);
        try
        {
            return await opening.WaitAsync(either.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            if (!opening.IsFaulted && !opening.IsCanceled)
            {
                // A layer that does not heed its token: nobody waits for it any more, but what it opens is closed.
                _connection.Server.BeginLateOpen();
                _ = CloseLateAsync(opening);
            }
            bool timedOut = e is OperationCanceledException && limit.IsCancellationRequested;
            string message = timedOut ? "opening the export took too long" : e.Message;
            // A layer's message is likely to quote the name.
            Log.OpenFailed(
                _connection.Server.Logger, _connection.Public.Id, LogText.Clean(name), LogText.Clean(message, 400),
                e is NbdException ? null : e);
            throw timedOut ? new NbdException(NbdError.IoError, message, e) : e;
        }
        finally
        {
            _connection.EndOpening();
        }
    }

    private async Task<NextContext> OpenAndPrepareAsync(string name, CancellationToken cancellationToken)
    {
        NextContext context = await _connection.Server.Backend.OpenEntryAsync(
            _options.ReadOnly, name, _connection.Public, cancellationToken).ConfigureAwait(false);
        try
        {
            await context.PrepareAsync(cancellationToken).ConfigureAwait(false);
            return context;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task CloseLateAsync(Task<NextContext> opening)
    {
        try
        {
            NextContext context = await opening.ConfigureAwait(false);
            await context.CloseAsync().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Log.LayerFailed(_connection.Server.Logger, _connection.Server.Backend.Name, "open", e);
        }
        finally
        {
            _connection.Server.EndLateOpen();
        }
    }
}
