using NbdKit.Buffers;
using NbdKit.Filters.Sequential;

namespace NbdKit.Filters;

/// <summary>
/// Serves what a disk decompresses to that is compressed with gzip (nbdkit-gzip-filter(1)). Read-only.
/// </summary>
/// <remarks>
/// <para>
/// Gzip has no random access, and does not tell how large it becomes: the first client that opens an export has to wait until
/// all of it has been decompressed. That is done once for each export (with TLS and without) and kept until the chain
/// stops, goes on if the client leaves, and is tried again by the next client if it failed. The layers below are read by a
/// context that belongs to no client, and closed afterwards.
/// </para>
/// <para>
/// The members of a file that has several follow each other, as <c>gzip -d</c> has it; what follows the last of them
/// and is none is ignored, as disks end with a whole sector. Checksums and lengths are verified: damaged data fails the open
/// with EIO, what is not gzip at all with EINVAL. Long runs of zeroes are holes. nbdkit serves only the first member, and
/// reports no extents.
/// </para>
/// </remarks>
public sealed class GzipFilter : INbdFilter
{
    private const long MemoryLimit = 1 << 30;

    private readonly OncePerExport<GzipImage> _images;
    private readonly SemaphoreSlim _one = new(1, 1);

    /// <summary>Creates the filter.</summary>
    public GzipFilter() => _images = new OncePerExport<GzipImage>(UnpackAsync);

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks>The parameters are not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "gzip",
        "decompresses a disk",
        [
            new NbdParameter("gzip-max-size", "the largest size to decompress to (default: no limit in a file, 1G in memory)"),
            new NbdParameter("gzip-store", "where to keep what was decompressed: file (default) or memory"),
            new NbdParameter("gzip-directory", "where to put the temporary file (default $TMPDIR or /var/tmp)"),
            new NbdParameter("gzip-max-exports", "how many exports may be kept at once (default 64)"),
        ],
        parameters => new GzipFilter
        {
            MaxSize = parameters.Size("gzip-max-size"),
            Store = parameters.OneOf("gzip-store", ("file", GzipStore.File), ("memory", GzipStore.Memory)) ?? GzipStore.File,
            Directory = parameters.Text("gzip-directory"),
            MaxExports = parameters.Integer("gzip-max-exports") ?? 64,
        });

    /// <summary>
    /// The largest size in bytes that an export may decompress to: a few bytes can become a thousand times as many. What
    /// becomes larger is refused with ENOSPC.
    /// </summary>
    /// <value>Null by default: no limit in a file, 1 GiB in memory. At least 1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? MaxSize
    {
        get;
        init
        {
            if (value is { } size)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(size, 1);
            }
            field = value;
        }
    }

    /// <summary>Where to keep what was decompressed. <see cref="GzipStore.File"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not defined.</exception>
    public GzipStore Store
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>
    /// The directory of the temporary file. Null, the default, for the environment variable <c>TMPDIR</c>, or else
    /// <c>/var/tmp</c>; on Windows for the user's temporary directory.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? Directory
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value);
            }
            field = value is null ? null : Path.GetFullPath(value);
        }
    }

    /// <summary>
    /// How many exports may be kept at once; one that clients open with TLS and without counts twice. What was decompressed is kept until
    /// the chain stops, but many plugins take any name that a client thinks of: the export that nobody has used for longest makes
    /// room for another. While that many are in use, further ones are refused with ENOSPC.
    /// </summary>
    /// <value>64 by default. At least 1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public int MaxExports
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            field = value;
        }
    } = 64;

    /// <inheritdoc/>
    public string Name => "gzip";

    /// <summary>Parallel over any layer: only one thing at a time is read from it, and no client reads from it.</summary>
    public ThreadModel GetThreadModel(ThreadModel next) => ThreadModel.Parallel;

    /// <inheritdoc/>
    /// <exception cref="DirectoryNotFoundException">There is no directory for the temporary file.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (Store == GzipStore.File && !System.IO.Directory.Exists(TemporaryDirectory()))
        {
            throw new DirectoryNotFoundException($"gzip: there is no directory {TemporaryDirectory()} for the decompressed disk.");
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        => new GzipHandle(await _images.GetAsync(context, MaxExports, cancellationToken).ConfigureAwait(false));

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        await _images.DisposeAsync().ConfigureAwait(false);
        _one.Dispose();
    }

    private async ValueTask<GzipImage> UnpackAsync(
        NbdBackend backend, (string ExportName, bool IsTls) export, CancellationToken cancellationToken)
    {
        // Exports are decompressed at the same time, unless the layer below takes one connection only.
        bool takesOne = backend.Next!.ThreadModel == ThreadModel.SerializeConnections;
        if (takesOne)
        {
            await _one.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        NextContext? next = null;
        try
        {
            next = await backend.OpenSharedNextAsync(readOnly: true, export.ExportName, export.IsTls, cancellationToken)
                .ConfigureAwait(false);
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            bool inMemory = Store == GzipStore.Memory;
            var store = new ScratchStore(inMemory, TemporaryDirectory(), MaxSize ?? (inMemory ? MemoryLimit : long.MaxValue));
            return await GzipImage.UnpackAsync(next, store, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (next is not null)
            {
                await next.CloseAsync().ConfigureAwait(false);
            }
            if (takesOne)
            {
                _one.Release();
            }
        }
    }

    private string TemporaryDirectory() => Directory ?? FileOverlayStore.DefaultDirectory;
}
