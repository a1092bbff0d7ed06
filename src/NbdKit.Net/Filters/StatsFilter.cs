using System.Text;
using NbdKit.Filters.Statistics;

namespace NbdKit.Filters;

/// <summary>
/// Counts requests, their bytes and their time, by kind, size, alignment and latency; for the host at any time
/// (<see cref="Snapshot"/>), and in a file at the end. Corresponds to nbdkit-stats-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Nearest the client it shows what clients ask for, further down what the filters above made of it. Requests that failed are
/// counted apart. A zero, a prefetch or a forced write that the layers below emulate is one request. A request costs no allocation.
/// </para>
/// <para>
/// The file is as nbdkit writes it; but prefetches are part of the total, and sizes that are equally frequent are all listed.
/// </para>
/// </remarks>
public sealed partial class StatsFilter : INbdFilter, IDisposable
{
    private readonly OperationCounts[] _counts = [.. Enumerable.Range(0, RequestOperations.Count).Select(_ => new OperationCounts())];
    private FileStream? _file;
    private long _started;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "stats",
        "counts requests, and writes statistics to a file at the end",
        [
            new NbdParameter("statsfile", "the file to write to") { IsRequired = true },
            new NbdParameter("statsappend", "whether to append to the file (yes) or to replace it (default no)"),
            new NbdParameter("statsthreshold", "percentage of requests that histograms are about, 0 for none (default 95)"),
        ],
        parameters => new StatsFilter
        {
            StatsFile = parameters.Required("statsfile"),
            Append = parameters.Boolean("statsappend") ?? false,
            Threshold = parameters.Integer("statsthreshold") ?? 95,
        });

    /// <summary>
    /// The path of a file that the statistics are written to when the chain ends; it is opened when the chain starts. Null, the
    /// default, for none.
    /// </summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? StatsFile
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

    /// <summary>Whether <see cref="StatsFile"/> keeps what it has. False by default: it is replaced.</summary>
    public bool Append { get; init; }

    /// <summary>
    /// The percentage of requests that the histograms in the file are about, the most frequent sizes first: from 0, no histograms, to
    /// 100. 95 by default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a percentage.</exception>
    public int Threshold
    {
        get;
        init
        {
            if (value is < 0 or > 100)
            {
                throw new ArgumentOutOfRangeException(nameof(value), value, "The threshold of statistics is from 0 to 100 percent.");
            }
            field = value;
        }
    } = 95;

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "stats";

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (StatsFile is not null)
        {
            _file = new FileStream(StatsFile, Append ? FileMode.Append : FileMode.Create, FileAccess.Write, FileShare.Read);
        }
        Volatile.Write(ref _started, TimeProvider.GetTimestamp());
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this);
    }

    /// <summary>What has been counted since the chain started. Safe from any thread at any time, also after the chain has ended.</summary>
    public StatsSnapshot Snapshot() => new(
        TimeProvider.GetElapsedTime(Volatile.Read(ref _started)),
        [.. _counts.Select((counts, operation) => counts.Snapshot((RequestOperation)operation))]);

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        if (_file is not null)
        {
            // Also if the end has to be quick: it is what the file is for.
            byte[] text = Encoding.UTF8.GetBytes(StatsText.Write(Snapshot(), Threshold));
            await _file.WriteAsync(text, CancellationToken.None).ConfigureAwait(false);
            await _file.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Closes the file. Called by the chain.</summary>
    public void Dispose()
    {
        _file?.Dispose();
        _file = null;
    }
}
