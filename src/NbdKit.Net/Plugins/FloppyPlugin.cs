using NbdKit.Plugins.Fat;

namespace NbdKit.Plugins;

/// <summary>
/// Serves a directory as a FAT32 file system in the one partition of an MBR disk, read-only (nbdkit-floppy-plugin(1)). Nothing is
/// copied: names, sizes and dates are read when the chain starts, and contents when they are asked for.
/// </summary>
/// <remarks>
/// <para>
/// Leave the directory alone while it is served. A file that was removed or replaced by another (Linux), or that has become
/// shorter than what is read of it, fails such reads with EIO; what is added to a file is not seen. Up to 16 files are open for each
/// connection.
/// </para>
/// <para>
/// Symbolic links are left out and never followed. The start fails, and names the file, for what FAT cannot hold: special files
/// (on Linux; nbdkit leaves them out), files of 4 GiB and more, names that are not UTF-8, that are longer than 255 UTF-16 units, that
/// end with a dot or a space or have a control character or one of <c>" * : &lt; &gt; ? \ |</c> in them, names in one directory that
/// differ only in case, and more than 65536 entries in one directory. So it does for more than 500000 files or more than 64 levels of
/// directories.
/// </para>
/// <para>
/// Dates are in the local time of the host, as FAT has no time zones; those of creation and of access are that of the last change.
/// There are always at least 65536 clusters (nbdkit makes fewer of them), since readers take what has less for another kind of FAT: the
/// smallest disk has 34 MiB, almost all of it a hole. To let clients write, put a <see cref="NbdKit.Filters.CowFilter"/> in front.
/// </para>
/// </remarks>
public sealed class FloppyPlugin : INbdPlugin
{
    private const int MaximumCount = 500_000;
    private const int MaximumDepth = 64;

    private byte[] _label = FatNames.Label("NBDKITFLOPY");
    private FatImage? _image;

    /// <summary>The plugin in the catalogue: <c>floppy</c>, with the magic parameter <c>dir</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "floppy",
        "serves a directory as a partition with a FAT32 file system",
        [
            new NbdParameter("dir", "the directory") { IsRequired = true },
            new NbdParameter("label", "the label of the file system, up to 11 characters (default: NBDKITFLOPY)"),
            new NbdParameter("size", "the size of the disk (default: what it takes)"),
        ],
        parameters => new FloppyPlugin
        {
            Directory = parameters.Required("dir"),
            Label = parameters.Text("label") ?? "NBDKITFLOPY",
            Size = parameters.Size("size"),
        })
    {
        MagicParameter = "dir",
    };

    /// <summary>The directory whose content is the root of the file system.</summary>
    /// <value>A full path: a relative one is resolved when it is set. Must be given.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public required string Directory { get; init => field = Path.GetFullPath(value); }

    /// <summary>
    /// The label of the file system: 1 to 11 ASCII characters, which are stored in upper case. <c>NBDKITFLOPY</c> by default.
    /// </summary>
    /// <exception cref="ArgumentException">FAT cannot hold the value.</exception>
    public string Label
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            _label = FatNames.Label(value);
            field = value;
        }
    } = "NBDKITFLOPY";

    /// <summary>
    /// The size of the disk in bytes, up to 2 TiB. Null by default: as large as it has to be, with no free space if the files fill the
    /// smallest disk.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or more than 2 TiB.</exception>
    public long? Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(value));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value ?? 0, 1L << 41, nameof(value));
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "floppy";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Reads the tree and lays the disk out.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">The tree cannot be read, or the disk cannot hold it; the message says which file.</exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (!System.IO.Directory.Exists(Directory))
        {
            throw new NbdException(NbdError.InvalidArgument, $"floppy: {Directory} is not a directory");
        }
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        FatTree tree = FatTree.Read(Directory, MaximumCount, MaximumDepth, cancellationToken);
        _image = new FatImage(tree.Nodes, _label, Size);
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(new FatDisk(_image!));
}
