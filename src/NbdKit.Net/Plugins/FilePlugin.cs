using NbdKit.Buffers;

namespace NbdKit.Plugins;

/// <summary>
/// Serves a file, a block device, the files of a directory, or files that the host has opened (nbdkit-file-plugin(1)). Set one of
/// <see cref="Path"/>, <see cref="Directory"/>, <see cref="Handle"/> and <see cref="Handles"/>.
/// </summary>
/// <remarks>
/// <para>
/// The size of an export is that of the file when it is opened. Each open has a file handle of its own, without any lock on
/// the file, unless the host gave the handle. A file that may only be read is served read-only.
/// </para>
/// <para>
/// On Linux, in a 64-bit process, trims punch holes, zeroes are made without writing them where the file system or the device
/// can, extents tell holes from data, and reads that the page cache can answer complete synchronously; so do small writes for as
/// long as they do not have to wait for the disk. Elsewhere trims are not offered, zeroes are written, all is reported as data,
/// block devices are not served, and every read goes through the framework's asynchronous file access.
/// </para>
/// <para>
/// Reads of 64 KiB and more that the page cache holds are sent to clients on sockets straight from there (sendfile(2), since
/// Linux 6.5). A client that is slow to take such a reply sees what the file holds when it takes it, which is what a request that
/// runs at the same time as a change of the same bytes may see anyway; a file that is made shorter meanwhile, by somebody else,
/// ends the connection.
/// </para>
/// <para>
/// Once a flush has failed, every later flush of the same context fails: the operating system reports data that it could not
/// write only once, and then drops it.
/// </para>
/// </remarks>
public sealed partial class FilePlugin : INbdPlugin
{
    /// <summary>
    /// The file or block device to serve, under whatever name a client asks for. Links are followed.
    /// </summary>
    /// <value>A full path: a relative one is resolved when it is set. Null by default.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public string? Path { get; init => field = FullPath(value); }

    /// <summary>
    /// The directory to serve: each regular file and block device in it is an export of that name. There is no default
    /// export.
    /// </summary>
    /// <value>A full path: a relative one is resolved when it is set. Null by default.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public string? Directory { get; init => field = FullPath(value); }

    /// <summary>
    /// Whether symbolic links in <see cref="Directory"/> are exports too. They are followed wherever they lead, out of the
    /// directory too, so only set it if clients cannot influence what the directory holds.
    /// </summary>
    /// <value>False by default: links are neither listed nor opened.</value>
    public bool FollowLinks { get; init; }

    /// <summary>Whether <see cref="Path"/> may be a symbolic link.</summary>
    internal bool FollowsPath { get; init; } = true;

    /// <summary>A directory above <see cref="Path"/>: no symbolic link may be on the way from it to the file. Null: there may.</summary>
    internal string? Root { get; init; }

    /// <summary>What happens to the page cache.</summary>
    /// <value><see cref="FileCacheMode.Default"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public FileCacheMode Cache
    {
        get;
        init => field = value is FileCacheMode.Default or FileCacheMode.None
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Cache), value, "There is no such cache mode.");
    }

    /// <summary>How clients will access the file; a hint to the operating system.</summary>
    /// <value><see cref="FileAdvice.Normal"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public FileAdvice Advice
    {
        get;
        init => field = value is FileAdvice.Normal or FileAdvice.Random or FileAdvice.Sequential
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Advice), value, "There is no such advice.");
    }

    /// <inheritdoc/>
    public string Name => "file";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Checks that what is to be served is there.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">
    /// Not exactly one of <see cref="Path"/>, <see cref="Directory"/>, <see cref="Handle"/> and <see cref="Handles"/> is set.
    /// </exception>
    /// <exception cref="NbdException">There is no such file or directory, or a handle cannot be served.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (new object?[] { Path, Directory, Handle, Handles }.Count(source => source is not null) != 1)
        {
            throw new InvalidOperationException("The file plugin serves a path, a directory, a handle or handles: set exactly one of them.");
        }
        if (Path is not null && !SparseFile.IsServable(Path, FollowsPath))
        {
            throw new NbdException(NbdError.InvalidArgument, $"file: {Path} is neither a file nor a block device");
        }
        if (Directory is not null && !System.IO.Directory.Exists(Directory))
        {
            throw new NbdException(NbdError.InvalidArgument, $"file: {Directory} is not a directory");
        }
        CheckHandles();
        return default;
    }

    /// <inheritdoc/>
    /// <exception cref="NbdException">
    /// There is no such export, or it cannot be opened. The message names no path of the host, as clients may see it.
    /// </exception>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        // Opening may wait for a device or a network file system.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        cancellationToken.ThrowIfCancellationRequested();
        FileOptions hint = Advice switch
        {
            FileAdvice.Random => FileOptions.RandomAccess,
            FileAdvice.Sequential => FileOptions.SequentialScan,
            _ => FileOptions.None,
        };
        SparseFile file = HasHandles
            ? FileOf(context.ExportName).Open(context.ReadOnly, hint)
            : Path is not null
            ? OpenPath(Path, context.ReadOnly, hint)
            : SparseFile.Open(PathOf(context.ExportName), context.ReadOnly, FollowLinks, hint);
        return new FileHandle(file, Cache);
    }

    private SparseFile OpenPath(string path, bool readOnly, FileOptions hint)
    {
        SparseFile file = SparseFile.Open(path, readOnly, FollowsPath, hint);
        if (Root is null || file.IsReachedFrom(Root, path))
        {
            return file;
        }
        file.Dispose();
        throw new NbdException(NbdError.PermissionDenied, "the file is not where its path leads: a symbolic link is on the way");
    }

    private static string? FullPath(string? value) => value is null ? null : System.IO.Path.GetFullPath(value);
}
