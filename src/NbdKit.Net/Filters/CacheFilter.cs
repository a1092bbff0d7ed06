using NbdKit.Buffers;
using NbdKit.Filters.Caching;

namespace NbdKit.Filters;

/// <summary>
/// Puts a local cache in front of a slow layer. Corresponds to nbdkit-cache-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Every export has one cache (with TLS another than without), and all connections share it. It stays when the last of them
/// ends, until the chain stops. The disk below must not be changed by others meanwhile.
/// </para>
/// <para>
/// In the modes that hold writes back, a flush on any connection writes the changed blocks of all of them below and then
/// flushes there, also where connections below know nothing of each other; so such an export may always be used by several
/// connections as one. A write with FUA goes below at once. A block that cannot be written below stays in the cache, to be
/// tried again by the next flush, and does not keep the others from being written. When the last connection that can write
/// ends, everything is written below and flushed there; what fails then waits for the next connection, and when the chain
/// stops it is tried once more over a context of its own (unless it was written over TLS, which such a context is not). Only
/// if that fails too, or the stop has to be quick, is it lost, and logged.
/// </para>
/// <para>
/// Zeroes and trims go below at once in all modes. Extents are those of the layer below, except that changed blocks are data.
/// </para>
/// <para>
/// With a limit, the blocks that were not used for longest make room, in the background from the high threshold on; changed
/// ones are written below before. A full disk under the cache is treated like a limit. Where no room can be made, requests
/// simply go below. Requests run in parallel; only those to the same block wait for each other.
/// </para>
/// </remarks>
public sealed partial class CacheFilter : INbdFilter
{
    private const int SmallestBlock = 4096;
    private const int LargestBlock = 32 << 20;

    private readonly Lock _lock = new();
    private readonly Dictionary<(string ExportName, bool IsTls), CacheImage> _images = [];

    /// <summary>The size in bytes of the smallest blocks that are kept: a power of two from 4 KiB to 32 MiB.</summary>
    /// <value>64 KiB by default. A layer below that prefers larger requests gets blocks of that size.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a number.</exception>
    public long MinBlockSize
    {
        get;
        init
        {
            if (value is < SmallestBlock or > LargestBlock || !long.IsPow2(value))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(value), value, "The block size must be a power of two from 4 KiB to 32 MiB.");
            }
            field = value;
        }
    } = 65_536;

    /// <summary>When to write to the layer below. <see cref="CacheMode.WriteBack"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not defined.</exception>
    public CacheMode Mode
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>
    /// The largest size in bytes of the cache of one export, rounded down to whole blocks but at least one. Null, the
    /// default, for no limit.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 4 KiB.</exception>
    public long? MaxSize
    {
        get;
        init
        {
            if (value is { } size)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(size, SmallestBlock, nameof(value));
            }
            field = value;
        }
    }

    /// <summary>The percentage of <see cref="MaxSize"/> above which room is made in the background. 95 by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not between 1 and 100.</exception>
    public int HighThreshold { get; init => field = Percentage(value); } = 95;

    /// <summary>
    /// The percentage of <see cref="MaxSize"/> down to which room is made; less than <see cref="HighThreshold"/>. 80 by
    /// default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not between 1 and 100.</exception>
    public int LowThreshold { get; init => field = Percentage(value); } = 80;

    /// <summary>
    /// Whether reads bring what they touch into the cache. False by default: then only writes and prefetches do.
    /// </summary>
    public bool OnRead { get; init; }

    /// <summary>The path of a file: while it exists, it is as if <see cref="OnRead"/> were set. Null by default.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? OnReadFile { get; init => field = FullPath(value); }

    /// <summary>Where to keep the blocks. <see cref="CacheStore.File"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not defined.</exception>
    public CacheStore Store
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(value), value, null);
    }

    /// <summary>
    /// The directory of the temporary file. Null, the default, for the environment variable <c>TMPDIR</c>, or else
    /// <c>/var/tmp</c>; on Windows for the user's temporary directory.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? Directory { get; init => field = FullPath(value); }

    /// <inheritdoc/>
    public string Name => "cache";

    /// <summary>Makes the store of one export, for tests of what stores do wrong.</summary>
    internal Func<IOverlayStore>? StoreFactory { get; init; }

    private bool KeepsReads => OnRead || (OnReadFile is not null && File.Exists(OnReadFile));

    private string TemporaryDirectory => Directory ?? FileOverlayStore.DefaultDirectory;

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The low threshold is not below the high one.</exception>
    /// <exception cref="DirectoryNotFoundException">There is no directory for the temporary file.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (LowThreshold >= HighThreshold)
        {
            throw new ArgumentException(
                $"cache: the low threshold ({LowThreshold} %) must be less than the high threshold ({HighThreshold} %).");
        }
        if (Store == CacheStore.File && !System.IO.Directory.Exists(TemporaryDirectory))
        {
            throw new DirectoryNotFoundException($"cache: there is no directory {TemporaryDirectory} for the cache.");
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new CacheHandle(this, context);
    }

    /// <inheritdoc/>
    /// <exception cref="NbdException">Something that was held back could not be written below.</exception>
    public async ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        KeyValuePair<(string ExportName, bool IsTls), CacheImage>[] images;
        lock (_lock)
        {
            images = [.. _images];
            _images.Clear();
        }
        List<string> lost = [];
        foreach (((string exportName, bool isTls), CacheImage image) in images)
        {
            await image.StopAsync().ConfigureAwait(false);
            if (image.Changed > 0 && !await TryWriteOutAsync(backend, exportName, isTls, image, cancellationToken).ConfigureAwait(false))
            {
                lost.Add($"{image.Changed} blocks of {image.BlockSize} bytes of the export '{exportName}'");
            }
            image.Dispose();
        }
        if (lost.Count > 0)
        {
            throw new NbdException(NbdError.IoError, $"written, but lost with the cache: {string.Join(", ", lost)}");
        }
    }
}
