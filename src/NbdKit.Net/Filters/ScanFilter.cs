using NbdKit.Filters.Ahead;

namespace NbdKit.Filters;

/// <summary>
/// Walks over the whole disk in the background and prefetches it, so that a cache below fills up. Corresponds to
/// nbdkit-scan-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Each export is scanned while clients have it open, over one shared context of its own; a client waits for a scan only
/// where the layers below take one request at a time. The scan sends prefetch requests; if the layer below takes none, it
/// reads. What fails is passed over. It stops at once when the last client leaves or the chain stops.
/// </para>
/// <para>
/// A shared context is not encrypted, so clients with TLS start no scan. A chain that takes one connection at a time is not
/// scanned.
/// </para>
/// </remarks>
public sealed partial class ScanFilter : INbdFilter
{
    private const int SmallestSize = 512;
    private const int LargestSize = 1 << 30;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, Scanner> _scanners = [];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "scan",
        "prefetches the whole disk in the background",
        [
            new NbdParameter("scan-ahead", "whether to go on after what clients read, if that is ahead (default yes)"),
            new NbdParameter("scan-clock", "whether to go on where the last scan stopped (default yes) or begin anew"),
            new NbdParameter("scan-forever", "whether to begin again at the end (default no)"),
            new NbdParameter("scan-size", "size of the requests, a power of 2 from 512 to 1G (default 2M)"),
            new NbdParameter("scan-rate", "bytes per second at most (default no limit)"),
        ],
        parameters => new ScanFilter
        {
            Ahead = parameters.Boolean("scan-ahead") ?? true,
            Clock = parameters.Boolean("scan-clock") ?? true,
            Forever = parameters.Boolean("scan-forever") ?? false,
            RequestSize = parameters.Size("scan-size") ?? 2 << 20,
            Rate = parameters.Size("scan-rate"),
        });

    /// <summary>Whether a scan jumps to what clients read, if that is ahead of it. True by default.</summary>
    public bool Ahead { get; init; } = true;

    /// <summary>Whether a scan goes on where the last one of its export was stopped. True by default.</summary>
    public bool Clock { get; init; } = true;

    /// <summary>Whether a scan begins again when it has come to the end of the disk. False by default.</summary>
    public bool Forever { get; init; }

    /// <summary>The size in bytes of each request: a power of two from 512 to 1 GiB. 2 MiB by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a number.</exception>
    public long RequestSize
    {
        get;
        init
        {
            if (value is < SmallestSize or > LargestSize || !long.IsPow2(value))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(value), value, "The size must be a power of two from 512 to 1 GiB.");
            }
            field = value;
        }
    } = 2 << 20;

    /// <summary>How many bytes to prefetch in a second at most. Null, the default, for no limit.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? Rate
    {
        get;
        init
        {
            if (value is { } rate)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(rate, 1, nameof(value));
            }
            field = value;
        }
    }

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "scan";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new ScanHandle(this, context);
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        Scanner[] scanners;
        lock (_lock)
        {
            scanners = [.. _scanners.Values];
            _scanners.Clear();
        }
        foreach (Scanner scanner in scanners)
        {
            await scanner.StopAsync().ConfigureAwait(false);
        }
    }

    private Scanner? Join(NbdContext context)
    {
        if (context.IsTls || context.Backend.Next!.ThreadModel == ThreadModel.SerializeConnections)
        {
            return null;
        }
        lock (_lock)
        {
            if (!_scanners.TryGetValue(context.ExportName, out Scanner? scanner))
            {
                _scanners.Add(context.ExportName, scanner = new Scanner(this, context.Backend, context.ExportName));
            }
            scanner.Enter();
            return scanner;
        }
    }
}
