using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_LIST.
internal sealed partial class Handshake
{
    private const int SendThreshold = 64 << 10;

    // What a list leaves of MaxHandshakeReplyBytes, so that its client can still ask and enter.
    private const int ListReserve = 64 << 10;

    private async ValueTask ListAsync(ReadOnlyMemory<byte> payload)
    {
        if (payload.Length != 0)
        {
            _replies.Error(OptionType.List, OptionReplyType.ErrInvalid, "the option has no payload");
            return;
        }
        if (!_options.OfferList)
        {
            _replies.Error(OptionType.List, OptionReplyType.ErrPolicy, "listing exports is not allowed");
            return;
        }
        if (_listed)
        {
            _replies.Error(OptionType.List, OptionReplyType.ErrPolicy, "the exports were listed before");
            return;
        }
        _listed = true;
        var exports = new ExportList();
        // Layers may take their time.
        await SendAsync().ConfigureAwait(false);
        try
        {
            await _connection.Server.Backend.ListExportsAsync(
                exports, _options.ReadOnly, _connection.Public, _connection.Aborted).ConfigureAwait(false);
        }
        catch (Exception e) when (!_connection.Aborted.IsCancellationRequested)
        {
            Log.LayerFailed(_connection.Server.Logger, _connection.Server.Backend.Name, "list exports", e);
            _replies.Error(
                OptionType.List,
                OptionReplyType.ErrPlatform,
                e is NbdException ? e.Message : "the exports could not be listed");
            return;
        }
        // A client that shows a list asks about each entry: qemu-nbd's asks for information and for the meta contexts.
        _optionsLeft += 2L * exports.Count;
        _queriesLeft += 2L * exports.Count;
        _opensLeft += exports.Count;
        _metaOpensLeft += exports.Count;
        long room = _options.MaxHandshakeReplyBytes - ListReserve;
        foreach (NbdExport export in exports)
        {
            if (!MayBePlain(export.Name))
            {
                continue;
            }
            if (_sent + _replies.Pending + OptionReplies.ServerSize(export.Name, export.Description ?? "") > room)
            {
                _connection.Refused(ReachedLimits.ListSize);
                _replies.Error(OptionType.List, OptionReplyType.ErrTooBig, "there are too many exports to list");
                return;
            }
            _replies.Server(OptionType.List, export.Name, export.Description ?? "");
            if (_replies.Pending >= SendThreshold)
            {
                await SendAsync().ConfigureAwait(false);
            }
        }
        _replies.Ack(OptionType.List);
    }
}
