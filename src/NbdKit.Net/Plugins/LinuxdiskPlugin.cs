using System.Globalization;
using Microsoft.Win32.SafeHandles;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins;

/// <summary>
/// Serves a directory as an ext2, ext3 or ext4 file system in the one partition of a GPT disk, read-only
/// (nbdkit-linuxdisk-plugin(1)). It is made once, when the chain starts, by <c>mke2fs</c>, which must be installed, as must
/// <c>du</c>. Linux only.
/// </summary>
/// <remarks>
/// Links, owners and special files are kept as far as <c>mke2fs</c> can read them. The image is a sparse temporary file without a
/// name, in the directory that the environment variable <c>TMPDIR</c> names, or else <c>/var/tmp</c>. To let clients write, put a
/// <see cref="NbdKit.Filters.CowFilter"/> in front.
/// </remarks>
public sealed class LinuxdiskPlugin : INbdPlugin, IDisposable
{
    private const int SectorSize = 512;
    private const long FileSystemStart = 1 << 20;
    private const long Unit = 4096;
    private const long SmallestSize = 1 << 20;
    private const long JournalSize = 32 << 20;

    private readonly MadeImage _image = new();

    /// <summary>The plugin in the catalogue: <c>linuxdisk</c>, with the magic parameter <c>dir</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "linuxdisk",
        "serves a directory as a partition with an ext2, ext3 or ext4 file system",
        [
            new NbdParameter("dir", "the directory") { IsRequired = true },
            new NbdParameter("type", "ext2, ext3 or ext4 (default: ext2)"),
            new NbdParameter("label", "the label of the file system"),
            new NbdParameter("size", "the size of the file system, or with a + before it the space left in it (default: what it takes)"),
        ],
        Create)
    {
        MagicParameter = "dir",
    };

    /// <summary>The directory whose content is the root of the file system.</summary>
    /// <value>A full path: a relative one is resolved when it is set. Must be given.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public required string Directory { get; init => field = Path.GetFullPath(value); }

    /// <summary>The file system: <c>ext2</c>, <c>ext3</c> or <c>ext4</c>. <c>ext2</c> by default.</summary>
    /// <exception cref="ArgumentException">The value is none of them.</exception>
    public string Type
    {
        get;
        init => field = value is "ext2" or "ext3" or "ext4"
            ? value
            : throw new ArgumentException($"linuxdisk: the type {value} is not one of ext2, ext3 and ext4.", nameof(value));
    } = "ext2";

    /// <summary>The label of the file system. Null, for none, by default.</summary>
    public string? Label { get; init; }

    /// <summary>
    /// The size of the file system in bytes; with <see cref="IsSizeFree"/> the space to leave in it. Null by default: as large as it has
    /// to be.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not from 0 to 2^62.</exception>
    public long? Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(value));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value ?? 0, 1L << 62, nameof(value));
            field = value;
        }
    }

    /// <summary>Whether <see cref="Size"/> is what is to be left free. False by default.</summary>
    public bool IsSizeFree { get; init; }

    /// <inheritdoc/>
    public string Name => "linuxdisk";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Makes the disk.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">A program is not there, or it failed.</exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (!System.IO.Directory.Exists(Directory))
        {
            throw new NbdException(NbdError.InvalidArgument, $"linuxdisk: {Directory} is not a directory");
        }
        string mke2fs = Tool.Find(Name, "mke2fs");
        long size = Size is { } given && !IsSizeFree ? given : await EstimateAsync(cancellationToken).ConfigureAwait(false) + (Size ?? 0);
        size = (size + Unit - 1) / Unit * Unit;
        await _image.MakeAsync(Name, async path =>
        {
            using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.ReadWrite);
            var layout = new SinglePartition(FileSystemStart / SectorSize, size / SectorSize);
            RandomAccess.SetLength(file, layout.DiskSectors * SectorSize);
            string[] label = Label is null ? [] : ["-L", Label];
            string offset = FileSystemStart.ToString(CultureInfo.InvariantCulture);
            await RunAsync(
                new ChildCommand(
                    mke2fs,
                    [
                        "-q", "-F", "-t", Type, .. label, "-d", Directory, "-E", $"offset={offset}", path,
                        string.Create(CultureInfo.InvariantCulture, $"{size / 1024}k"),
                    ]),
                ChildOutput.FirstOf(0),
                cancellationToken).ConfigureAwait(false);
            layout.WriteTable(file);
        }).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(_image.Open());

    /// <summary>Gives the disk up.</summary>
    public void Dispose() => _image.Dispose();

    private static LinuxdiskPlugin Create(NbdParameters parameters)
    {
        string? type = parameters.Text("type");
        return new LinuxdiskPlugin
        {
            Directory = parameters.Required("dir"),
            Type = type ?? "ext2",
            Label = parameters.Text("label"),
            Size = parameters.Size("size"),
            IsSizeFree = parameters.Text("size") is { } size && size.StartsWith('+'),
        };
    }

    /// <summary>What the directory takes, and a good deal more for the file system itself; it costs nothing in a sparse file.</summary>
    private async Task<long> EstimateAsync(CancellationToken cancellationToken)
    {
        ChildOutput output = ChildOutput.UpTo(65_536);
        await RunAsync(new ChildCommand(Tool.Find(Name, "du"), ["-s", "-k", "--", Directory]), output, cancellationToken).ConfigureAwait(false);
        string number = (output.Text() ?? "").Split('\t')[0];
        if (!long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out long kilobytes) || kilobytes > 1L << 50)
        {
            throw new NbdException(NbdError.IoError, "linuxdisk: du did not tell the size of the directory");
        }
        long size = Math.Max(kilobytes * 1024 / 5 * 6, SmallestSize);
        return Type == "ext2" ? size : size + JournalSize;
    }

    private static async Task RunAsync(ChildCommand command, ChildOutput output, CancellationToken cancellationToken)
    {
        ChildResult result = await ChildRun.RunAsync(
            command, default, output, Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        result.Expect($"linuxdisk: {command.Name} failed");
    }
}
