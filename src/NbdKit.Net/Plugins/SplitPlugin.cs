namespace NbdKit.Plugins;

/// <summary>One disk made of files that are put one after the other (nbdkit-split-plugin(1)).</summary>
/// <remarks>
/// <para>
/// The files may be of any size, also empty, and must keep it while the disk is open. Each context opens them anew; if
/// one of them cannot be opened for writing, that context is read-only. Requests run in parallel, also across files
/// (nbdkit runs one at a time), and a flush brings all files to stable storage (nbdkit's plugin has none).
/// </para>
/// <para>
/// Trims, zeroes and extents are those of the files, as <see cref="FilePlugin"/> has them; block devices may stand among
/// them.
/// </para>
/// </remarks>
public sealed partial class SplitPlugin : INbdPlugin
{
    /// <summary>The plugin in the catalogue: <c>split</c>, with the magic parameter <c>file</c>, which is
    /// repeatable.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "split",
        "one disk made of several files, one after the other",
        [new NbdParameter("file", "a file; once for each, in order") { IsRequired = true, IsRepeatable = true }],
        parameters => new SplitPlugin { Files = parameters.Texts("file") })
    {
        MagicParameter = "file",
    };

    /// <summary>
    /// The paths of the files in order, at least one. A relative path counts from the current directory at the time the
    /// property is set, and reads back as a full one.
    /// </summary>
    /// <exception cref="ArgumentNullException">The list or a path is null.</exception>
    /// <exception cref="ArgumentException">The list or a path is empty, or a path has a NUL in it.</exception>
    public required IReadOnlyList<string> Files
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            if (value.Count == 0)
            {
                throw new ArgumentException("split: at least one file must be given.", nameof(value));
            }
            field = [.. value.Select(Path.GetFullPath)];
        }
    }

    /// <inheritdoc/>
    public string Name => "split";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    /// <exception cref="FileNotFoundException">One of the files does not exist.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        foreach (string file in Files)
        {
            if (!File.Exists(file))
            {
                throw new FileNotFoundException($"split: there is no file {file}.", file);
            }
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        return new(new Disk(Files, context.ReadOnly));
    }
}
