using NbdKit.Filters.Ext2;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Serves one file inside an ext2, ext3 or ext4 file system as if it were the whole export (nbdkit-ext2-filter(1)).
/// </summary>
/// <remarks>
/// <para>
/// The export is as large as the file. Holes, and blocks that were reserved but never written, read as zeroes and are
/// reported as holes. Writes go to the blocks that the file has. A write that would need more than that fails with ENOSPC
/// and changes nothing; one that zeroes what is not there has nothing to do. Nothing else in the file system changes, not
/// even the time of the last change. The export is read-only if the layer below is, if the file system asks for it (errors,
/// not unmounted cleanly, features that forbid writing, multiple mount protection), if the file is immutable, append-only
/// or has verity, and if its content is in its inode.
/// </para>
/// <para>
/// All connections that open the same export of the layer below, in the same way (encrypted or not, read-only or not), share
/// one context of it, so they see each other's writes and a flush covers all. It is closed with the last of them. The file
/// system must not be mounted elsewhere at the same time.
/// </para>
/// <para>
/// Opening fails with EINVAL if there is no such file, if it is not a regular file or is encrypted, if the directories on
/// the way to it have more than 128 MiB, if the file system has features that are not known (the message names them), is
/// larger than the disk, or has a journal that must be replayed; with EIO if the file system is damaged. Checksums are
/// verified where there are any. Names are compared byte by byte, also in directories that ignore case. Symbolic links are
/// followed inside the image. Unlike nbdkit, no journal is replayed, and requests are not serialized.
/// </para>
/// </remarks>
public sealed class Ext2Filter : INbdFilter
{
    private const string ByExportName = "exportname";

    private readonly SharedImages<Volume> _images = new((_, next, cancellationToken) => Volume.MountAsync(next, cancellationToken));

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "ext2",
        "serve a file inside an ext2, ext3 or ext4 file system",
        [
            new NbdParameter("ext2file", "path of the file, or 'exportname' to let the client choose it by the export name")
            {
                IsRequired = true,
            },
        ],
        parameters => new Ext2Filter
        {
            File = parameters.Required("ext2file") is var file && file == ByExportName ? null : file,
        });

    /// <summary>
    /// The path of the file, from the root directory of the file system, or null to let the client choose: then the name of
    /// the export is the path, with or without a slash at its beginning, there is no default export, exports are not
    /// listed, and the image is the default export of the layer below.
    /// </summary>
    /// <value>Begins with a slash; <c>exportname</c> in nbdkit is null here.</value>
    /// <exception cref="ArgumentException">The path does not begin with a slash, or has a NUL character.</exception>
    public required string? File
    {
        get;
        init
        {
            if (value is not null && (!value.StartsWith('/') || value.Contains('\0', StringComparison.Ordinal)))
            {
                throw new ArgumentException(
                    $"The path of the file, '{value}', must begin with a slash and not have a NUL character.", nameof(File));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "ext2";

    /// <summary>The number of contexts of the layer below that are open.</summary>
    internal int SharedCount => _images.Count;

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
        => File is null ? default : next.ListExportsAsync(exports, readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => File is null ? new((string?)null) : next.DefaultExportAsync(readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        NbdBackend next = context.Backend.Next!;
        string? below = File is not null && context.ExportName.Length > 0
            ? context.ExportName
            : await next.DefaultExportAsync(context.ReadOnly, context.Connection, cancellationToken).ConfigureAwait(false);
        if (below is null)
        {
            throw new NbdException(NbdError.InvalidArgument, $"{next.Name} has no default export to look for files in");
        }
        var key = new ImageKey(below, context.IsTls, context.ReadOnly);
        SharedImage<Volume> image = await _images.AcquireAsync(context.Backend, key, cancellationToken).ConfigureAwait(false);
        try
        {
            string path = File ?? context.ExportName;
            Inode inode = await PathWalk.FindFileAsync(image.Content, path, cancellationToken).ConfigureAwait(false);
            FileHandle handle = inode.IsInline
                ? new InlineFile(context, image, path, inode)
                : new MappedFile(context, image, path, inode);
            context.SetNext(image.Context);
            return handle;
        }
        catch
        {
            await image.ReleaseAsync().ConfigureAwait(false);
            throw;
        }
    }
}
