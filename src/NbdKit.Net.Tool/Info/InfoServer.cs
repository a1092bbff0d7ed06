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
        bool newer = handshake.IsFixedNewstyle;
        var server = new InfoServer(
            newer,
            handshake.IsTls,
            handshake.HasExtendedHeaders ? "extended" : handshake.HasStructuredReplies ? "structured" : "simple",
            []);
        try
        {
            if (all || newer)
            {
                return server with { Exports = await ExportsAsync(handshake, uri, all).ConfigureAwait(false) };
            }
        }
        catch (NbdClientException e) when (!all && e.Error == NbdClientError.Unsupported)
        {
            // An older server tells what an export is only when it is opened.
        }
        finally
        {
            await handshake.DisposeAsync().ConfigureAwait(false);
        }
        NbdClient client = await NbdClient.ConnectAsync(uri.ToString(), options).ConfigureAwait(false);
        try
        {
            return server with { Exports = [new InfoExport(uri.ExportName, client.Info.Description, uri, client.Info)] };
        }
        finally
        {
            await client.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async Task<List<InfoExport>> ExportsAsync(NbdHandshake handshake, NbdUri uri, bool all)
    {
        IReadOnlyList<NbdExport> listed = all ? await handshake.ListAsync().ConfigureAwait(false) : [new(uri.ExportName)];
        var exports = new List<InfoExport>();
        foreach (NbdExport export in listed)
        {
            NbdExportInfo? info = null;
            try
            {
                info = await handshake.InfoAsync(export.Name).ConfigureAwait(false);
            }
            catch (NbdClientException e) when (all && e.Error
                is NbdClientError.ExportUnknown or NbdClientError.Refused or NbdClientError.Unsupported or NbdClientError.TlsRequired)
            {
                // It is listed all the same.
            }
            exports.Add(new(export.Name, info?.Description ?? export.Description, uri with { ExportName = export.Name }, info));
        }
        return exports;
    }
}
