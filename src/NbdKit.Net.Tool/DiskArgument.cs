namespace NbdKit.Tool;

/// <summary>
/// A disk on the command line: a URI, a file, or a chain in square brackets, written as for serving it
/// (<c>[ --filter=NAME PLUGIN KEY=VALUE ]</c>).
/// </summary>
internal sealed class DiskArgument
{
    private static readonly string[] Schemes = ["nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock"];

    private DiskArgument(string text, string? path, bool isUri, CommandOptions? chain)
    {
        Text = text;
        Path = path;
        IsUri = isUri;
        Chain = chain;
    }

    /// <summary>What was written, for messages.</summary>
    public string Text { get; }

    /// <summary>The full path of a file or device, or null if it is none.</summary>
    public string? Path { get; }

    /// <summary>Whether it is the URI of a server.</summary>
    public bool IsUri { get; }

    private CommandOptions? Chain { get; }

    /// <summary>Understands one argument.</summary>
    /// <param name="words">A word, or the words of a chain with the opening bracket.</param>
    /// <exception cref="CommandException">It makes no sense.</exception>
    public static DiskArgument Parse(IReadOnlyList<string> words)
    {
        if (words[0] == "[")
        {
            CommandOptions chain = CommandLine.Parse([.. words.Skip(1)]);
            return chain.Mode == CommandMode.Serve && !chain.HasTransport && chain.Run is null
                ? new DiskArgument($"[ {string.Join(' ', words.Skip(1))} ]", null, false, chain)
                : throw new CommandException("in square brackets there is a plugin with its filters, and nothing about serving it");
        }
        string word = words[0];
        int colon = word.IndexOf(':', StringComparison.Ordinal);
        if (colon > 0 && Schemes.Contains(word[..colon].ToLowerInvariant()))
        {
            return new DiskArgument(word, null, true, null);
        }
        return word.Length > 0
            ? new DiskArgument(word, System.IO.Path.GetFullPath(word), false, null)
            : throw new CommandException("the name of a file is empty");
    }

    /// <summary>Composes the chain that stands for it.</summary>
    /// <exception cref="ArgumentException">The URI, or the parameters of the chain, make no sense.</exception>
    public NbdBackend Compose(NbdCatalogue catalogue)
    {
        if (Chain is not null)
        {
            return catalogue.Compose(Chain.Plugin!, Chain.Filters, Chain.Parameters);
        }
        return IsUri ? catalogue.Compose("nbd", [], [new("uri", Text)]) : catalogue.Compose("file", [], [new("file", Path!)]);
    }

    /// <summary>Opens it as often as it pays.</summary>
    /// <param name="catalogue">The plugins and filters.</param>
    /// <param name="readOnly">Whether it is only read.</param>
    /// <param name="connections">How often to open it if it allows several connections; a file is opened once.</param>
    /// <param name="log">Receives what the layers report.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<OpenedDisk> OpenAsync(
        NbdCatalogue catalogue, bool readOnly, int connections, LogFactory log, CancellationToken cancellationToken)
    {
        var disk = new OpenedDisk(Compose(catalogue));
        try
        {
            await disk.OpenAsync(
                Chain?.ExportName ?? "", readOnly || Chain is { ReadOnly: true }, Path is null ? connections : 1, log, cancellationToken)
                .ConfigureAwait(false);
            return disk;
        }
        catch (Exception e) when (e is NbdException or IOException)
        {
            await disk.DisposeAsync().ConfigureAwait(false);
            throw new CommandException($"{Text}: {StandardText.OneLine(e)}", e);
        }
        catch
        {
            await disk.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }
}
