namespace NbdKit.Tool.Info;

/// <summary>The verb <c>info</c>: what nbdinfo is to libnbd.</summary>
internal static class InfoCommand
{
    /// <summary>The first word of the command line that selects it.</summary>
    public const string Verb = "info";

    /// <summary>Asks a server and writes what it says.</summary>
    /// <param name="arguments">What follows the verb.</param>
    /// <param name="output">Where the answer goes.</param>
    /// <exception cref="CommandException">The arguments make no sense, or the server has not what was asked for.</exception>
    /// <exception cref="UriFormatException">The URI makes no sense.</exception>
    /// <exception cref="NbdClientException">The server could not be asked.</exception>
    public static async Task RunAsync(IReadOnlyList<string> arguments, Stream output)
    {
        InfoOptions options = InfoOptions.Parse(arguments);
        if (options.Help)
        {
            await output.WriteAsync(StandardText.Bytes(InfoOptions.Usage)).ConfigureAwait(false);
            return;
        }
        // The URI is the user's own: it may name certificates.
        var clientOptions = new NbdClientOptions { AllowLocalFilesInUris = true };
        NbdUri uri = NbdUri.Parse(options.Uri!, allowLocalFiles: true);
        if (options.Map is not null)
        {
            await InfoMap.WriteAsync(options, uri, clientOptions, output).ConfigureAwait(false);
            return;
        }
        InfoServer server = await InfoServer.AskAsync(uri, options.List, clientOptions).ConfigureAwait(false);
        byte[] answer = options.Size ? StandardText.Bytes($"{server.Exports[0].Info!.Size}\n")
            : options.Json ? InfoJson.Of(server)
            : StandardText.Bytes(InfoText.Of(server));
        await output.WriteAsync(answer).ConfigureAwait(false);
    }
}
