namespace NbdKit.Server;

// A handshake that is the host's own: the export is opened as for NBD_OPT_GO, and nothing is said to the peer.
internal sealed partial class Handshake
{
    private async ValueTask<ExportSession> SettledAsync(NbdTransmission negotiated)
    {
        string name = negotiated.ExportName;
        if (_connection.RefusesRequests)
        {
            throw new ConnectionEndedException(_connection.Refusal.Reason, _connection.Refusal.Detail);
        }
        if (NeedsTls || await NeedsTlsAsync(name).ConfigureAwait(false))
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.TlsRequired, $"the export '{LogText.Clean(name)}' is served over TLS only");
        }
        NextContext context;
        try
        {
            context = await OpenAsync(name).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not ConnectionEndedException)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ExportUnavailable,
                $"the export '{LogText.Clean(name)}' cannot be opened: {LogText.Message(e)}");
        }
        try
        {
            ExportSession session = await SettleAsync(context, negotiated).ConfigureAwait(false);
            Enter(session);
            return session;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async ValueTask<ExportSession> SettleAsync(NextContext context, NbdTransmission negotiated)
    {
        try
        {
            ExportSession session = Settle(context, negotiated);
            if (negotiated.Opened is not { } opened)
            {
                return session;
            }
            NbdTransmission offered = negotiated with
            {
                Size = session.Info.Size,
                Flags = session.Flags,
                BlockSize = session.Info.BlockSize,
            };
            NbdTransmission settled = await opened(offered, session.Info, _connection.Aborted).AsTask()
                .WaitAsync(_connection.Aborted).ConfigureAwait(false)
                ?? throw new ArgumentException("The host's handshake settled nothing.", nameof(negotiated));
            return settled.ExportName == negotiated.ExportName
                ? Settle(context, settled)
                : throw new ArgumentException("The host's handshake changed the export after it was opened.", nameof(negotiated));
        }
        catch (Exception e) when (!_connection.Aborted.IsCancellationRequested)
        {
            _connection.HostFault = e;
            throw new ConnectionEndedException(NbdDisconnectReason.HandshakeFailed, LogText.Message(e));
        }
    }

    /// <summary>What was settled, unless it is more than the export has.</summary>
    /// <exception cref="ArgumentException">It is.</exception>
    private ExportSession Settle(NextContext context, NbdTransmission negotiated)
    {
        negotiated.CheckForm();
        NbdExportInfo info = context.Info;
        foreach (string name in negotiated.MetaContexts)
        {
            if (!info.MetaContexts.Contains(name) || (!negotiated.ExtendedHeaders && info.WideMetaContexts.Contains(name)))
            {
                throw new ArgumentException(
                    $"The export has no meta context '{name}', or none for replies of this form.", nameof(negotiated));
            }
        }
        _form = negotiated.Form;
        _metaExport = negotiated.ExportName;
        _metaContexts = [.. negotiated.MetaContexts];
        ExportSession whole = Session(context, negotiated.ExportName);
        return whole with
        {
            Flags = FlagsWithin(whole.Flags, negotiated.Flags),
            Info = info with { Size = SizeWithin(info, negotiated.Size) },
        };
    }

    private static TransmissionFlags FlagsWithin(TransmissionFlags offered, TransmissionFlags? told)
    {
        if (told is not { } flags)
        {
            return offered;
        }
        flags |= TransmissionFlags.HasFlags;
        if ((flags & ~offered & ~TransmissionFlags.ReadOnly) is var more and not TransmissionFlags.None)
        {
            throw new ArgumentException(
                $"The peer was told {more}, which the export does not offer; it offers {offered}.", "negotiated");
        }
        return (offered & ~flags & TransmissionFlags.ReadOnly) == 0
            ? flags
            : throw new ArgumentException("The peer was not told that the export is read-only.", "negotiated");
    }

    private static long SizeWithin(NbdExportInfo info, long? told)
    {
        long size = told ?? info.Size;
        if (size > info.Size)
        {
            throw new ArgumentException($"The peer was told {size} bytes; the export has {info.Size}.", "negotiated");
        }
        long minimum = Math.Max(1, info.BlockSize.Minimum);
        return size == info.Size || size % minimum == 0
            ? size
            : throw new ArgumentException(
                $"The peer was told {size} bytes, which are not whole blocks of {minimum} bytes.", "negotiated");
    }
}
