using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. The option is understood as a whole before anything is answered.
internal sealed partial class Handshake
{
    private string? _metaExport;
    private List<string> _metaContexts = [];

    private void MetaContext(OptionType option, byte[] payload)
    {
        bool set = option == OptionType.SetMetaContext;
        if (set)
        {
            // Even a request that fails replaces what was selected before.
            ForgetMetaContexts();
            if (!_structuredReplies)
            {
                _replies.Error(option, OptionReplyType.ErrInvalid, "structured replies must be negotiated first");
                return;
            }
        }
        MetaContextRequest? request = MetaContextRequest.Read(
            payload, _options.MaxMetaQueries, out string fault, out bool tooMany);
        if (request is null)
        {
            _replies.Error(option, tooMany ? OptionReplyType.ErrTooBig : OptionReplyType.ErrInvalid, fault);
            return;
        }
        bool selected = request.Queries.Contains(ExtentList.BaseAllocation)
            || (!set && (request.Queries.Count == 0 || request.Queries.Contains("base:")));
        if (selected)
        {
            _replies.MetaContext(option, set ? 1u : 0u, ExtentList.BaseAllocation);
        }
        _replies.Ack(option);
        if (set)
        {
            _metaExport = request.Name;
            _metaContexts = selected ? [ExtentList.BaseAllocation] : [];
        }
    }

    private void ForgetMetaContexts()
    {
        _metaExport = null;
        _metaContexts = [];
    }
}
