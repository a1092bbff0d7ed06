using NbdKit.Buffers;
using NbdKit.Filters.Caching;

namespace NbdKit.Filters;

// The caches of the exports, and the catalogue.
public sealed partial class CacheFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "cache",
        "puts a local cache in front of a slow disk",
        [
            new NbdParameter("cache", "when to write below: writeback (default), writethrough or unsafe (ignores flushes)"),
            new NbdParameter("cache-min-block-size", "smallest size of the blocks, a power of 2 from 4K to 32M (default 64K)"),
            new NbdParameter("cache-max-size", "largest size of the cache of an export (default no limit)"),
            new NbdParameter("cache-high-threshold", "percentage of that above which room is made in the background (default 95)"),
            new NbdParameter("cache-low-threshold", "percentage of that down to which room is made (default 80)"),
            new NbdParameter("cache-on-read", "whether reads are kept: no (default), yes, or the absolute path of a file: yes while it exists"),
            new NbdParameter("cache-store", "where to keep the blocks: file (default) or memory"),
            new NbdParameter("cache-directory", "where to put the temporary file (default $TMPDIR or /var/tmp)"),
        ],
        Create);

    private CacheImage Acquire(NbdContext context, NbdExportInfo below)
    {
        lock (_lock)
        {
            (string, bool) key = (context.ExportName, context.IsTls);
            if (_images.TryGetValue(key, out CacheImage? image)
                && (image.Size != below.Size || image.BlockSize < below.BlockSize.Minimum))
            {
                if (image.Users > 0 || image.Changed > 0)
                {
                    throw new NbdException(
                        NbdError.IoError,
                        $"the disk below has {below.Size} bytes now, but {image.Size} when its cache was made");
                }
                image.Dispose();
                image = null;
            }
            if (image is null)
            {
                int blockSize = (int)Math.Max(MinBlockSize, Math.Max(below.BlockSize.Minimum, below.BlockSize.Preferred));
                CacheLimits? limits = MaxSize is { } size ? new CacheLimits(size, HighThreshold, LowThreshold) : null;
                _images[key] = image = new CacheImage(below.Size, blockSize, NewStore(blockSize), Mode, limits);
            }
            image.Users++;
            return image;
        }
    }

    private void Release(NbdContext context, CacheImage image)
    {
        lock (_lock)
        {
            if (--image.Users == 0 && image.Used == 0)
            {
                image.Dispose();
                _images.Remove((context.ExportName, context.IsTls));
            }
        }
    }

    /// <summary>Writes below what no connection could, over a context of its own.</summary>
    private static async ValueTask<bool> TryWriteOutAsync(
        NbdBackend backend, string exportName, bool isTls, CacheImage image, CancellationToken cancellationToken)
    {
        if (isTls || cancellationToken.IsCancellationRequested)
        {
            return false;
        }
        try
        {
            NextContext next = await backend.OpenNextAsync(readOnly: false, exportName, owner: null, cancellationToken)
                .ConfigureAwait(false);
            await using (next.ConfigureAwait(false))
            {
                await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
                if (next.Info.Size == image.Size && next.Info.CanWrite)
                {
                    await image.WriteOutAsync(new CacheUser(next), cancellationToken).ConfigureAwait(false);
                }
            }
        }
        catch (Exception)
        {
            // What matters is what is left; the caller says so.
        }
        return image.Changed == 0;
    }

    private IOverlayStore NewStore(int blockSize)
        => StoreFactory?.Invoke() ?? (Store == CacheStore.Memory
            ? new MemoryOverlayStore(Math.Min(blockSize, 1 << 20))
            : new FileOverlayStore(TemporaryDirectory));

    private static int Percentage(int value)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 100);
        return value;
    }

    private static string? FullPath(string? value)
    {
        if (value is null)
        {
            return null;
        }
        ArgumentException.ThrowIfNullOrWhiteSpace(value);
        return Path.GetFullPath(value);
    }

    private static CacheFilter Create(NbdParameters parameters)
    {
        string? onRead = parameters.Text("cache-on-read");
        bool isPath = onRead is not null && Path.IsPathFullyQualified(onRead);
        int high = parameters.Integer("cache-high-threshold") ?? 95;
        int low = parameters.Integer("cache-low-threshold") ?? 80;
        if (low >= high)
        {
            throw new ArgumentException($"cache: cache-low-threshold={low} must be less than cache-high-threshold={high}.");
        }
        return new CacheFilter
        {
            Mode = parameters.OneOf(
                "cache",
                ("writeback", CacheMode.WriteBack),
                ("writethrough", CacheMode.WriteThrough),
                ("unsafe", CacheMode.Unsafe)) ?? CacheMode.WriteBack,
            MinBlockSize = parameters.Size("cache-min-block-size") ?? 65_536,
            MaxSize = parameters.Size("cache-max-size"),
            HighThreshold = high,
            LowThreshold = low,
            OnRead = !isPath && (parameters.Boolean("cache-on-read") ?? false),
            OnReadFile = isPath ? onRead : null,
            Store = parameters.OneOf("cache-store", ("file", CacheStore.File), ("memory", CacheStore.Memory)) ?? CacheStore.File,
            Directory = parameters.Text("cache-directory"),
        };
    }
}
