using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>Lists of exports and of meta contexts.</summary>
internal sealed partial class ClientHandshake
{
    /// <summary>The exports that the server lists (NBD_OPT_LIST).</summary>
    public Task<IReadOnlyList<NbdExport>> ListAsync(CancellationToken cancellationToken)
        => GuardAsync<IReadOnlyList<NbdExport>>(
            async () =>
            {
                RequireOptions();
                var exports = new List<NbdExport>();
                OptionRefusal? refusal = await AskAsync(
                    OptionType.List,
                    default,
                    OptionReplyType.Server,
                    ServerReply.MaximumBytes,
                    ExportList.MaximumCount,
                    content => Take(content)).ConfigureAwait(false);
                return refusal is null ? exports : throw refusal.ToException();

                string? Take(byte[] content)
                {
                    if (ServerReply.Read(content, out string fault) is not { } export)
                    {
                        return fault;
                    }
                    exports.Add(export);
                    return null;
                }
            },
            leaveOnRefusal: false,
            cancellationToken);

    /// <summary>The meta contexts of an export that match queries, all if there are none (NBD_OPT_LIST_META_CONTEXT).</summary>
    public Task<IReadOnlyList<string>> ListMetaContextsAsync(
        string exportName, IReadOnlyList<string> queries, CancellationToken cancellationToken)
        => GuardAsync<IReadOnlyList<string>>(
            async () =>
            {
                RequireOptions();
                var names = new List<string>();
                // The numbers mean nothing here.
                OptionRefusal? refusal = await AskForContextsAsync(
                    OptionType.ListMetaContext, exportName, queries, (_, name) => names.Add(name)).ConfigureAwait(false);
                return refusal is null ? names : throw refusal.ToException();
            },
            leaveOnRefusal: false,
            cancellationToken);

    /// <summary>Asks for the meta contexts of the options; those that were granted, by their numbers.</summary>
    private async Task<Dictionary<uint, string>> SetMetaContextsAsync(string exportName)
    {
        var contexts = new Dictionary<uint, string>();
        IReadOnlyList<string> wanted = StructuredReplies || ExtendedHeaders
            ? await WantedContextsAsync(exportName).ConfigureAwait(false)
            : [];
        if (wanted.Count == 0)
        {
            return contexts;
        }
        bool repeated = false;
        OptionRefusal? refusal = await AskForContextsAsync(
            OptionType.SetMetaContext,
            exportName,
            [.. wanted.Distinct()],
            (id, name) => repeated |= contexts.ContainsValue(name) || !contexts.TryAdd(id, name)).ConfigureAwait(false);
        if (repeated)
        {
            throw Violation("the server gave one number to two meta contexts, or two to one");
        }
        // What stands before a refusal does not count. If the export is what was refused, the next option will say so.
        return refusal is null ? contexts : [];
    }

    private async Task<IReadOnlyList<string>> WantedContextsAsync(string exportName)
    {
        if (!_options.RequestListedMetaContexts)
        {
            return _options.MetaContexts;
        }
        var listed = new List<string>();
        // A server that lists nothing may still grant what is asked for by name.
        OptionRefusal? refusal = await AskForContextsAsync(
            OptionType.ListMetaContext, exportName, [], (_, name) => listed.Add(name)).ConfigureAwait(false);
        return refusal is null ? [.. _options.MetaContexts.Union(listed)] : _options.MetaContexts;
    }

    private Task<OptionRefusal?> AskForContextsAsync(
        OptionType option, string exportName, IReadOnlyList<string> queries, Action<uint, string> add)
        => AskAsync(
            option,
            MetaContextRequest.Payload(exportName, queries),
            OptionReplyType.MetaContext,
            MetaContextReply.MaximumBytes,
            MaximumContexts,
            content =>
            {
                if (!MetaContextReply.TryRead(content, out uint id, out string name))
                {
                    return "it names no meta context";
                }
                add(id, name);
                return null;
            });

    private void RequireOptions()
    {
        if (!_fixedNewstyle)
        {
            throw new NbdClientException(NbdClientError.Unsupported, "the server knows no options");
        }
    }
}
