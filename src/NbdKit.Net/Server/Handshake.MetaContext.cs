using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. The option is understood as a whole before anything is answered.
internal sealed partial class Handshake
{
    private string? _metaExport;
    private List<string> _metaContexts = [];

    private async ValueTask MetaContextAsync(OptionType option, ReadOnlyMemory<byte> payload)
    {
        bool isList = option == OptionType.ListMetaContext;
        if (!isList)
        {
            // Even a request that fails replaces what was selected before.
            ForgetMetaContexts();
            if (_form == ReplyForm.Simple)
            {
                _replies.Error(option, OptionReplyType.ErrInvalid, "structured replies must be negotiated first");
                return;
            }
        }
        MetaContextRequest? request = MetaContextRequest.Read(
            payload.Span, (int)Math.Min(_options.MaxMetaQueries, _queriesLeft), out string fault, out bool tooMany);
        if (request is null)
        {
            if (tooMany)
            {
                _connection.Refused(ReachedLimits.MetaQueries);
            }
            _replies.Error(option, tooMany ? OptionReplyType.ErrTooBig : OptionReplyType.ErrInvalid, fault);
            return;
        }
        _queriesLeft -= request.Queries.Count;
        NextContext? context = await OpenToAskAsync(option, request.Name).ConfigureAwait(false);
        if (context is null)
        {
            return;
        }
        List<string> selected = Select(context.Info, request.Queries, isList);
        for (int i = 0; i < selected.Count; i++)
        {
            _replies.MetaContext(option, isList ? 0 : (uint)i + 1, selected[i]);
        }
        _replies.Ack(option);
        if (!isList)
        {
            _metaExport = request.Name;
            _metaContexts = selected;
        }
    }

    private List<string> Select(NbdExportInfo info, IReadOnlyList<string> queries, bool isList)
    {
        // Status of more than 32 bits has no room in a compact reply.
        List<string> offered = [.. info.MetaContexts.Where(
            name => _form == ReplyForm.Extended || !info.WideMetaContexts.Contains(name))];
        if (isList && queries.Count == 0)
        {
            return offered;
        }
        // A client may ask a thousand times for the same, in each of its options.
        var selected = new List<string>();
        for (int i = 0; i < queries.Count && selected.Count < offered.Count; i++)
        {
            foreach (string name in offered)
            {
                if (MetaContextName.Matches(queries[i], name, isList) && !selected.Contains(name))
                {
                    selected.Add(name);
                }
            }
        }
        return selected;
    }

    /// <summary>What was selected for an export, as far as it still has it. Contexts count for no other export.</summary>
    private List<string> SelectedFor(string name, NbdExportInfo info)
        => _metaExport == name && _metaContexts.All(info.MetaContexts.Contains) ? _metaContexts : [];

    private void ForgetMetaContexts()
    {
        _metaExport = null;
        _metaContexts = [];
    }
}
