using NbdKit.Buffers;
using NbdKit.Filters.Sequential;

namespace NbdKit.Filters;

/// <summary>
/// Makes random access of a source that can only be read from its beginning to its end, such as a tape or a download: what was
/// read is kept in a temporary file. Read-only. nbdkit has it on its to-do list.
/// </summary>
/// <remarks>
/// <para>
/// The source is read in order, every byte once, one request at a time, and only as far as clients have asked: a request for the
/// last byte has to wait for everything before it. All connections to an export (with TLS and without) share what was read, and
/// the place where the source is. A client that gives up does not make the source skip anything; a read that failed is repeated
/// where it failed when somebody asks again.
/// </para>
/// <para>
/// The source is opened once for each export, by a context that belongs to no client, and closed when all of it was read or the
/// chain stops. Prefetches begin to read and do not wait. Extents know holes in what was read; the rest is data. Writes can
/// be had with <see cref="CowFilter"/> on top.
/// </para>
/// </remarks>
public sealed class ForwardOnlyFilter : INbdFilter
{
    private const int SmallestRead = 4096;
    private const int LargestRead = 64 << 20;

    private readonly OncePerExport<ForwardSource> _sources;
    private string? _only;

    /// <summary>Creates the filter.</summary>
    public ForwardOnlyFilter() => _sources = new OncePerExport<ForwardSource>(OpenSourceAsync, gone: () => _only = null);

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks>Not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "forward-only",
        "random access to a disk that can only be read in order",
        [
            new NbdParameter("forward-only-read-size", "how much to read at once, a power of 2 from 4K to 64M (default 256K)"),
            new NbdParameter("forward-only-directory", "where to put the temporary file (default $TMPDIR or /var/tmp)"),
            new NbdParameter("forward-only-max-exports", "how many exports may be kept at once (default 64)"),
        ],
        parameters => new ForwardOnlyFilter
        {
            ReadSize = parameters.Size("forward-only-read-size") ?? 256 << 10,
            Directory = parameters.Text("forward-only-directory"),
            MaxExports = parameters.Integer("forward-only-max-exports") ?? 64,
        });

    /// <summary>
    /// How many bytes to read from the source at once: a power of two from 4 KiB to 64 MiB. A minimum block size of the layer
    /// below that is larger takes its place.
    /// </summary>
    /// <value>256 KiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a number.</exception>
    public long ReadSize
    {
        get;
        init
        {
            if (value is < SmallestRead or > LargestRead || !long.IsPow2(value))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(value), value, "The size of reads must be a power of two from 4 KiB to 64 MiB.");
            }
            field = value;
        }
    } = 256 << 10;

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
    /// How many exports may be kept at once; one that clients open with TLS and without counts twice. What was opened is kept until
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
    public string Name => "forward-only";

    /// <summary>Parallel over any layer: only one thing at a time is read from it.</summary>
    public ThreadModel GetThreadModel(ThreadModel next) => ThreadModel.Parallel;

    /// <inheritdoc/>
    /// <exception cref="DirectoryNotFoundException">There is no directory for the temporary file.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (!System.IO.Directory.Exists(TemporaryDirectory()))
        {
            throw new DirectoryNotFoundException($"forward-only: there is no directory {TemporaryDirectory()} for what is read.");
        }
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        => new ForwardHandle(await _sources.GetAsync(context, MaxExports, cancellationToken).ConfigureAwait(false));

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken) => _sources.DisposeAsync();

    private async ValueTask<ForwardSource> OpenSourceAsync(
        NbdBackend backend, (string ExportName, bool IsTls) export, CancellationToken cancellationToken)
    {
        // What it has read cannot be read again, so the source stays open: a second one would have to wait for ever.
        if (backend.Next!.ThreadModel == ThreadModel.SerializeConnections
            && Interlocked.CompareExchange(ref _only, export.ExportName, null) is { } only)
        {
            throw new NbdException(
                NbdError.InvalidArgument, $"{backend.Next.Name} takes one connection, which export '{only}' has");
        }
        NextContext? next = null;
        try
        {
            next = await backend.OpenSharedNextAsync(readOnly: true, export.ExportName, export.IsTls, cancellationToken)
                .ConfigureAwait(false);
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            int chunk = (int)Math.Max(ReadSize, next.Info.BlockSize.Minimum);
            return new ForwardSource(next, new ScratchStore(InMemory: false, TemporaryDirectory(), long.MaxValue), chunk);
        }
        catch
        {
            if (next is not null)
            {
                await next.CloseAsync().ConfigureAwait(false);
            }
            _only = null;
            throw;
        }
    }

    private string TemporaryDirectory() => Directory ?? FileOverlayStore.DefaultDirectory;
}
