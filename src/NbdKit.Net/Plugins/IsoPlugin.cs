using System.Text;
using Microsoft.Win32.SafeHandles;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins;

/// <summary>
/// Serves directories as a CD image, read-only (nbdkit-iso-plugin(1)). It is made once, when the chain starts, by
/// <c>xorriso</c>, <c>genisoimage</c> or <c>mkisofs</c>, whichever is installed. Linux only.
/// </summary>
/// <remarks>
/// The image is a temporary file without a name, in the directory that the environment variable <c>TMPDIR</c> names, or else
/// <c>/var/tmp</c>. Unlike with nbdkit no shell is involved: <see cref="Options"/> are arguments as they are.
/// </remarks>
public sealed class IsoPlugin : INbdPlugin, IDisposable
{
    private readonly MadeImage _image = new();

    /// <summary>The plugin in the catalogue: <c>iso</c>, with the magic parameter <c>dir</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "iso",
        "serves directories as a CD image",
        [
            new NbdParameter("dir", "a directory; the content of several is merged") { IsRequired = true, IsRepeatable = true },
            new NbdParameter("params", "more options for the program, such as '-JrT -V \"A label\"'; quotes keep words together"),
            new NbdParameter("prog", "the program (default: xorriso, genisoimage or mkisofs)"),
        ],
        parameters => new IsoPlugin
        {
            Directories = parameters.Texts("dir"),
            Options = Words(parameters.Text("params") ?? ""),
            Program = parameters.Text("prog"),
        })
    {
        MagicParameter = "dir",
    };

    /// <summary>The directories whose content is put into the image, side by side. At least one must be given.</summary>
    public required IReadOnlyList<string> Directories { get; init; }

    /// <summary>More options for the program, such as <c>-J</c> and <c>-r</c> to keep long names. None by default.</summary>
    public IReadOnlyList<string> Options { get; init; } = [];

    /// <summary>
    /// The program, by name or path; one whose name is xorriso gets <c>-as mkisofs</c>. Null by default: the first that is installed.
    /// </summary>
    public string? Program { get; init; }

    /// <inheritdoc/>
    public string Name => "iso";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Makes the image.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">There is no directory to serve.</exception>
    /// <exception cref="NbdException">The program is not there, or it failed.</exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (Directories.Count == 0)
        {
            throw new InvalidOperationException("The iso plugin needs a directory.");
        }
        foreach (string directory in Directories)
        {
            if (!Directory.Exists(directory))
            {
                throw new NbdException(NbdError.InvalidArgument, $"iso: {directory} is not a directory");
            }
        }
        string program = Program is null
            ? Tool.Find(Name, "xorriso", "genisoimage", "mkisofs")
            : Program.Contains('/', StringComparison.Ordinal) ? Path.GetFullPath(Program) : Tool.Find(Name, Program);
        string[] mode = Path.GetFileName(program) == "xorriso" ? ["-as", "mkisofs"] : [];
        await _image.MakeAsync(Name, async path =>
        {
            using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write);
            var command = new ChildCommand(program, [.. mode, "-quiet", .. Options, .. Directories.Select(Path.GetFullPath)])
            {
                StandardOutput = file,
            };
            ChildResult result = await ChildRun.RunAsync(
                command, default, null, Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            result.Expect($"iso: {command.Name} failed");
        }).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(_image.Open());

    /// <summary>Gives the image up.</summary>
    public void Dispose() => _image.Dispose();

    /// <summary>The words of a text, between spaces; quotes and backslashes keep what they stand for to the shell.</summary>
    internal static List<string> Words(string text)
    {
        var words = new List<string>();
        StringBuilder? word = null;
        char quote = '\0';
        for (int i = 0; i < text.Length; i++)
        {
            char c = text[i];
            if (c == quote)
            {
                quote = '\0';
            }
            else if (quote == '\0' && c is '\'' or '"')
            {
                quote = c;
                word ??= new StringBuilder();
            }
            else if (c == '\\' && quote != '\'' && i + 1 < text.Length)
            {
                (word ??= new StringBuilder()).Append(text[++i]);
            }
            else if (quote == '\0' && char.IsWhiteSpace(c))
            {
                if (word is not null)
                {
                    words.Add(word.ToString());
                }
                word = null;
            }
            else
            {
                (word ??= new StringBuilder()).Append(c);
            }
        }
        if (quote != '\0')
        {
            throw new ArgumentException($"iso: params={text}: a quotation mark is not closed.");
        }
        if (word is not null)
        {
            words.Add(word.ToString());
        }
        return words;
    }
}
