namespace NbdKit.Tool.Info;

/// <summary>A server, and the exports that were asked for.</summary>
/// <param name="IsFixedNewstyle">Whether it knows options.</param>
/// <param name="IsTls">Whether the connection was encrypted.</param>
/// <param name="Packets">The form of its replies: simple, structured or extended.</param>
/// <param name="Exports">The exports.</param>
internal sealed record InfoServer(bool IsFixedNewstyle, bool IsTls, string Packets, IReadOnlyList<InfoExport> Exports)
{
    public string Protocol => IsFixedNewstyle ? "newstyle-fixed" : "newstyle";

    /// <summary>Asks a server.</summary>
    /// <param name="uri">The server, and the export unless all are wanted.</param>
    /// <param name="all">Whether to ask for every export that the server lists.</param>
    /// <param name="options">How to connect.</param>
    public static async Task<InfoServer> AskAsync(NbdUri uri, bool all, NbdClientOptions options)
    {
        NbdHandshake handshake = await NbdHandshake.ConnectAsync(uri.ToString(), options).ConfigureAwait(false);
        var server = new InfoServer(
            handshake.IsFixedNewstyle,
            handshake.IsTls,
            handshake.HasExtendedHeaders ? "extended" : handshake.HasStructuredReplies ? "structured" : "simple",
            []);
        IReadOnlyList<string> contexts = [];
        try
        {
            if (all)
            {
                return server with { Exports = await ExportsAsync(handshake, uri).ConfigureAwait(false) };
            }
            if (handshake.HasStructuredReplies)
            {
                contexts = await handshake.ListMetaContextsAsync(uri.ExportName).ConfigureAwait(false);
            }
        }
        catch (NbdClientException e) when (!all && IsRefusal(e.Error))
        {
            // If it is the export that the server does not have, opening it will say so.
        }
        finally
        {
            await handshake.DisposeAsync().ConfigureAwait(false);
        }
        // Some servers tell the size only when the export is opened.
        NbdClient client = await NbdClient.ConnectAsync(uri.ToString(), options).ConfigureAwait(false);
        try
        {
            return server with
            {
                Exports = [new InfoExport(uri.ExportName, client.Info.Description, uri, client.Info, contexts)],
            };
        }
        finally
        {
            await client.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async Task<List<InfoExport>> ExportsAsync(NbdHandshake handshake, NbdUri uri)
    {
        var exports = new List<InfoExport>();
        foreach (NbdExport export in await handshake.ListAsync().ConfigureAwait(false))
        {
            NbdExportInfo? info = null;
            try
            {
                info = await handshake.InfoAsync(export.Name).ConfigureAwait(false);
            }
            catch (NbdClientException e) when (IsRefusal(e.Error))
            {
                // It is listed all the same.
            }
            NbdUri where = uri with { ExportName = export.Name };
            exports.Add(new(export.Name, info?.Description ?? export.Description, where, info, info?.MetaContexts ?? []));
        }
        return exports;
    }

    private static bool IsRefusal(NbdClientError error) => error is NbdClientError.ExportUnknown or NbdClientError.Refused
        or NbdClientError.Unsupported or NbdClientError.TlsRequired;
}
