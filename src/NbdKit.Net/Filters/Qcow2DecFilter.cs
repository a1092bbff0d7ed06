using NbdKit.Filters.Qcow2;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Serves the virtual disk of a qcow2 image, read-only; the layer below serves the bytes of the image. Corresponds to
/// nbdkit-qcow2dec-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Reads images of the versions 2 and 3, with clusters of any size, compressed with deflate or not, with zero clusters,
/// subclusters (extended L2 entries) and internal snapshots. Holes and zeroes are reported from the tables of the image, and the
/// meta context <c>qemu:allocation-depth</c> tells in which image of a backing chain a range is allocated.
/// </para>
/// <para>
/// An image may name other files: a backing file, or an external data file. Whoever made the image chose these names, so none is
/// opened unless the host says how, with <see cref="OpenFile"/> or <see cref="BackingDirectory"/>. A backing file of the format
/// qcow2 is decoded here too; there may be up to 64 images in a chain. Relative names are relative to the folder of the image that
/// has them, as for QEMU.
/// </para>
/// <para>
/// Opening fails with EINVAL if the image needs something that is not supported or not allowed: encryption, compression with
/// zstd, an incompatible feature that is not known (the message has its name), another file, a snapshot that is not there, or if it
/// is marked as corrupt (<see cref="AllowCorrupt"/>). Images that were not closed cleanly are read: their reference counts may be
/// wrong, but those do not matter to a reader. A damaged image fails with EIO, when it is opened or when the damaged part of its
/// tables is needed. The memory for tables and decompressed clusters is limited (<see cref="CacheSize"/>).
/// </para>
/// <para>
/// All connections that open the same export of the layer below, encrypted or not, share one context of it and one cache. Nobody
/// may change the image meanwhile. Unlike nbdkit, exports may be different images, and there are backing files, subclusters and
/// snapshots, but no zstd.
/// </para>
/// </remarks>
public sealed class Qcow2DecFilter : INbdFilter
{
    private readonly SharedImages<Image> _images;

    /// <summary>Creates the filter.</summary>
    public Qcow2DecFilter()
        => _images = new SharedImages<Image>((backend, next, cancellationToken) =>
            ImageOpener.OpenAsync(this, backend, next, cancellationToken));

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "qcow2dec",
        "decodes a qcow2 image, read-only",
        [
            new NbdParameter(
                "qcow2-backing-dir",
                "directory of the backing files and external data files that the image names (default: none may be opened)"),
            new NbdParameter("qcow2-snapshot", "id or name of an internal snapshot to serve (default: the current state)"),
            new NbdParameter("qcow2-cache-size", "memory for tables and decompressed clusters (default 16M)"),
            new NbdParameter("qcow2-allow-corrupt", "whether to read an image that is marked as corrupt (default no)"),
        ],
        parameters => new Qcow2DecFilter
        {
            BackingDirectory = parameters.Text("qcow2-backing-dir"),
            Snapshot = parameters.Text("qcow2-snapshot"),
            CacheSize = parameters.Size("qcow2-cache-size") ?? 16 << 20,
            AllowCorrupt = parameters.Boolean("qcow2-allow-corrupt") ?? false,
        });

    /// <summary>
    /// Opens a file that an image names: gets the name and the format as the image has them, a relative name made relative to the
    /// folder of the first image, and returns a chain, or null to refuse. Null by default: nothing is opened.
    /// </summary>
    /// <remarks>
    /// <para>
    /// For the format <c>qcow2</c> the chain serves the bytes of the file, and the filter decodes them. For any other it serves the
    /// disk itself: for <c>raw</c> the bytes of the file, for <c>vmdk</c> what a plugin for that makes of it. The format is null if
    /// the image has none; an external data file is <c>raw</c>. Guessing the format from the content of a file is dangerous: who
    /// could write to a raw disk could make it look like an image that names a file of the host.
    /// </para>
    /// <para>
    /// Called from any thread, for each file, when an image is opened by the first of its clients. The default export of the chain
    /// is opened read-only, and closed with the image; then the chain ends, unless the host started it.
    /// </para>
    /// </remarks>
    /// <value>Null by default.</value>
    public Func<string, string?, NbdBackend?>? OpenFile { get; init; }

    /// <summary>
    /// A directory from which the files that an image names are opened, if their names lead to it or to what is below it, and their
    /// formats are raw or qcow2; a relative name is relative to it. Symbolic links in it are refused, as they may lead out of it. Not
    /// used if <see cref="OpenFile"/> is set.
    /// </summary>
    /// <value>A full path: a relative one is resolved when it is set. Null by default: nothing is opened.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public string? BackingDirectory { get; init => field = value is null ? null : Path.GetFullPath(value); }

    /// <summary>The id, or else the name, of an internal snapshot to serve instead of the current state of the disk.</summary>
    /// <value>Null by default.</value>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? Snapshot
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrEmpty(value, nameof(Snapshot));
            }
            field = value;
        }
    }

    /// <summary>
    /// How much memory in bytes each image may take, with its backing files: one half for tables, one for decompressed clusters.
    /// At least one page of a table (up to 64 KiB) and one cluster are kept however little it is.
    /// </summary>
    /// <value>16 MiB by default, enough for the tables of 64 GiB with clusters of 64 KiB.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long CacheSize
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(CacheSize));
            field = value;
        }
    } = 16 << 20;

    /// <summary>
    /// Whether to read an image that is marked as corrupt: QEMU does so when it finds that its tables contradict themselves, and
    /// what is read may be wrong.
    /// </summary>
    /// <value>False by default: such an image is refused.</value>
    public bool AllowCorrupt { get; init; }

    /// <inheritdoc/>
    public string Name => "qcow2dec";

    /// <summary>What opens files that an image names, or null if they may not be opened.</summary>
    internal Func<string, string?, NbdBackend?>? FileOpener
        => OpenFile ?? (BackingDirectory is { } directory ? (name, format) => BackingFolder.Open(directory, name, format) : null);

    /// <summary>The number of images that are open.</summary>
    internal int OpenImages => _images.Count;

    /// <summary>Checks that there is a directory of backing files, if one is set.</summary>
    /// <inheritdoc/>
    /// <exception cref="DirectoryNotFoundException">There is none.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => BackingDirectory is null || Directory.Exists(BackingDirectory)
            ? default
            : throw new DirectoryNotFoundException($"qcow2dec: there is no directory {BackingDirectory} of backing files.");

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        var key = new ImageKey(context.ExportName, context.IsTls, ReadOnly: true);
        SharedImage<Image> image = await _images.AcquireAsync(context.Backend, key, cancellationToken).ConfigureAwait(false);
        try
        {
            context.SetNext(image.Context);
            return new Qcow2Handle(context, image);
        }
        catch
        {
            await image.ReleaseAsync().ConfigureAwait(false);
            throw;
        }
    }
}
