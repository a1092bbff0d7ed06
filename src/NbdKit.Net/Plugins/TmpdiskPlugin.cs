using NbdKit.Buffers;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins;

/// <summary>
/// A fresh disk for each client that opens an export: by default an empty file system, which is gone when the client leaves
/// (nbdkit-tmpdisk-plugin(1)). Linux only.
/// </summary>
/// <remarks>
/// <para>
/// The disk is a sparse file in the directory that the environment variable <c>TMPDIR</c> names, or else <c>/var/tmp</c>. It has no
/// name there once it was opened, so that nothing of it stays behind however the process ends. All clients together may take
/// their number times <see cref="Size"/>. Flushes succeed and do nothing.
/// </para>
/// <para>
/// <c>mkfs.TYPE</c> is run directly and not through <c>mkfs</c>; it must be installed. A <see cref="Command"/> gets its variables in the
/// environment, so that the programs that it runs see them too. Unlike with nbdkit, FAT file systems can have a label.
/// </para>
/// </remarks>
public sealed class TmpdiskPlugin : INbdPlugin
{
    private DiskMaker? _maker;

    /// <summary>The plugin in the catalogue: <c>tmpdisk</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "tmpdisk",
        "a fresh disk for each client; any other parameter is a variable for the command",
        [
            new NbdParameter("size", "the size of the disk") { IsRequired = true },
            new NbdParameter("type", "the file system (default: ext4)"),
            new NbdParameter("label", "the label of the file system"),
            new NbdParameter("command", "a shell script that makes the disk $disk, instead of mkfs"),
        ],
        parameters => new TmpdiskPlugin
        {
            Size = parameters.Size("size")!.Value,
            Type = parameters.Text("type") ?? "ext4",
            Label = parameters.Text("label"),
            Command = parameters.Text("command"),
            Variables = Others(parameters, "size", "type", "label", "command"),
        })
    {
        MagicParameter = "size",
        TakesOtherParameters = true,
    };

    /// <summary>
    /// The size of a disk in bytes. A <see cref="Command"/> is told it as <c>$size</c>, and may make another. 0 by default, which is of
    /// use with a command only.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <summary>The file system, as in the name of its <c>mkfs</c> program. <c>ext4</c> by default.</summary>
    public string Type { get; init; } = "ext4";

    /// <summary>The label of the file system. Null, for none, by default.</summary>
    public string? Label { get; init; }

    /// <summary>
    /// A script for <c>/bin/sh</c> that makes the disk, instead of <c>mkfs</c>: a file or a link to a block device at the path in
    /// <c>$disk</c>. Also set are <c>$size</c>, <c>$type</c>, <c>$label</c> and <see cref="Variables"/>. Null by default.
    /// </summary>
    public string? Command { get; init; }

    /// <summary>More environment variables for <see cref="Command"/>. None by default.</summary>
    public IReadOnlyDictionary<string, string> Variables { get; init; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public string Name => "tmpdisk";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Checks the settings, and that the program that makes disks is there.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">A setting is wrong.</exception>
    /// <exception cref="NbdException">There is no such program.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _maker = new DiskMaker(Name, Type, Label, Command, Variables);
        _maker.GetReady();
        return default;
    }

    /// <summary>Makes a disk.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">It could not be made.</exception>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        string folder = MadeDisk.MakeFolder(FileOverlayStore.DefaultDirectory, Name);
        try
        {
            string disk = Path.Join(folder, "disk");
            await _maker!.MakeAsync(disk, Size, cancellationToken).ConfigureAwait(false);
            SparseFile file = SparseFile.Open(disk, context.ReadOnly, followLinks: true, FileOptions.None);
            return new MadeDisk(file, multiConn: false, durable: false, owned: true);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>The parameters that are variables.</summary>
    internal static Dictionary<string, string> Others(NbdParameters parameters, params string[] known)
    {
        var others = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach ((string name, string value) in parameters.All)
        {
            if (!known.Contains(name))
            {
                others[name] = value;
            }
        }
        return others;
    }
}
