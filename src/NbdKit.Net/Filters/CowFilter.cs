using NbdKit.Buffers;

namespace NbdKit.Filters;

/// <summary>
/// Makes a read-only layer writable: what is written goes to an overlay, which is thrown away when the chain stops. The layer
/// below is only ever opened read-only. Corresponds to nbdkit-cow-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Every export has one overlay (with TLS another than without: what trusted clients wrote is not for others), and all
/// connections share it. It is kept when the last of them ends, so that a client that comes back finds its data, and freed
/// when the chain stops. An overlay that nothing was written to costs nothing. The layer below has to keep its size and its
/// content; an export that comes back with another size than its overlay has is refused.
/// </para>
/// <para>
/// The overlay is as short-lived as the process: flushes and FUA succeed at once because there is nothing to make safe, and
/// after a crash everything written is gone. Do not keep the only copy of anything in it.
/// </para>
/// <para>
/// Blocks that are written whole go straight to the overlay; the first write to a part of a block copies the rest of it
/// from below. If that fails, so does the write, and the block is as before. Trimming, and zeroing where space may be given
/// up, only mark whole blocks, which is what makes fast zeroes fast. Requests run in parallel; only those that bring the
/// same block into the overlay wait for each other.
/// </para>
/// </remarks>
public sealed partial class CowFilter : INbdFilter
{
    private const int SmallestBlock = 4096;
    private const int LargestBlock = 32 << 20;

    private readonly Lock _lock = new();
    private readonly Dictionary<(string ExportName, bool IsTls), CowOverlay> _overlays = [];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "cow",
        "makes a read-only disk writable; changes are thrown away at the end",
        [
            new NbdParameter("cow-block-size", "size of the blocks that are copied, a power of 2 from 4K to 32M (default 64K)"),
            new NbdParameter("cow-on-cache", "whether prefetches copy into the overlay (default no)"),
            new NbdParameter("cow-on-read", "whether reads copy into the overlay: no (default), yes, or the absolute path of a file: yes while it exists"),
            new NbdParameter("cow-store", "where to keep what is written: file (default) or memory"),
            new NbdParameter("cow-directory", "where to put the temporary file (default $TMPDIR or /var/tmp)"),
        ],
        Create);

    /// <summary>
    /// The size in bytes of the blocks in which the overlay is kept: a power of two from 4 KiB to 32 MiB. 64 KiB by default.
    /// A layer below that takes nothing smaller than a larger block gets that.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a number.</exception>
    public long BlockSize
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

    /// <summary>Whether prefetches copy what they touch into the overlay. False by default.</summary>
    public bool OnCache { get; init; }

    /// <summary>Whether reads copy what they touch into the overlay. False by default.</summary>
    public bool OnRead { get; init; }

    /// <summary>The path of a file: while it exists, reads copy as if <see cref="OnRead"/> were set. Null by default.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? OnReadFile
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

    /// <summary>Where to keep what is written. <see cref="CowStore.File"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not defined.</exception>
    public CowStore Store
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

    /// <inheritdoc/>
    public string Name => "cow";

    private bool CopiesOnRead => OnRead || (OnReadFile is not null && File.Exists(OnReadFile));

    /// <inheritdoc/>
    /// <exception cref="DirectoryNotFoundException">There is no directory for the temporary file.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (Store == CowStore.File && !System.IO.Directory.Exists(TemporaryDirectory()))
        {
            throw new DirectoryNotFoundException($"cow: there is no directory {TemporaryDirectory()} for the overlay.");
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(readOnly: true, context.ExportName, cancellationToken).ConfigureAwait(false);
        return new CowHandle(this, context);
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            foreach (CowOverlay overlay in _overlays.Values)
            {
                overlay.Dispose();
            }
            _overlays.Clear();
        }
        return default;
    }

    private CowOverlay Acquire(NbdContext context, NbdExportInfo below)
    {
        lock (_lock)
        {
            (string, bool) key = (context.ExportName, context.IsTls);
            if (!_overlays.TryGetValue(key, out CowOverlay? overlay))
            {
                int blockSize = (int)Math.Max(BlockSize, below.BlockSize.Minimum);
                IOverlayStore store = Store == CowStore.Memory
                    ? new MemoryOverlayStore(Math.Min(blockSize, 1 << 20))
                    : new FileOverlayStore(TemporaryDirectory());
                overlay = new CowOverlay(below.Size, blockSize, store);
                _overlays.Add(key, overlay);
            }
            else if (overlay.Size != below.Size)
            {
                throw new NbdException(
                    NbdError.IoError,
                    $"the disk below has {below.Size} bytes now, but {overlay.Size} when its overlay was made");
            }
            overlay.Users++;
            return overlay;
        }
    }

    private void Release(NbdContext context, CowOverlay overlay)
    {
        lock (_lock)
        {
            if (--overlay.Users == 0 && overlay.IsEmpty)
            {
                overlay.Dispose();
                _overlays.Remove((context.ExportName, context.IsTls));
            }
        }
    }

    private string TemporaryDirectory() => Directory ?? FileOverlayStore.DefaultDirectory;

    private static CowFilter Create(NbdParameters parameters)
    {
        string? onRead = parameters.Text("cow-on-read");
        bool isPath = onRead is not null && Path.IsPathFullyQualified(onRead);
        return new CowFilter
        {
            BlockSize = parameters.Size("cow-block-size") ?? 65_536,
            OnCache = parameters.Boolean("cow-on-cache") ?? false,
            OnRead = !isPath && (parameters.Boolean("cow-on-read") ?? false),
            OnReadFile = isPath ? onRead : null,
            Store = parameters.OneOf("cow-store", ("file", CowStore.File), ("memory", CowStore.Memory)) ?? CowStore.File,
            Directory = parameters.Text("cow-directory"),
        };
    }
}
