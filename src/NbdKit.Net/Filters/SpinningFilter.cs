using NbdKit.Filters.Spinning;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>Simulates the seek times of a disk that spins (nbdkit-spinning-filter(1)).</summary>
/// <remarks>
/// <para>
/// The disk is divided evenly between the heads. A read, write or zero first moves a head to where it begins; moves of one arm come one
/// after the other, in the order in which they were asked for. A move of up to 128 KiB takes no time, any other as long as a parabola
/// says that goes through the three times.
/// </para>
/// <para>
/// All clients of an export share one set of heads, which rests at the beginning when nobody has the export open; with nbdkit each
/// connection has its own, for which it takes multi-conn away.
/// </para>
/// </remarks>
public sealed class SpinningFilter : INbdFilter
{
    private static readonly TimeSpan Longest = TimeSpan.FromHours(1);

    private readonly Lock _lock = new();
    private readonly Dictionary<string, Platter> _platters = new(StringComparer.Ordinal);

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "spinning",
        "simulates the seek times of a disk that spins",
        [
            new NbdParameter("heads", "the number of heads, from 1 to 64 (default 1)"),
            new NbdParameter("separate-heads", "whether each head has an arm of its own (default no)"),
            new NbdParameter("min-seek-time", "the time to the next track (default 10ms)"),
            new NbdParameter("half-seek-time", "the time over half of the range of a head (default 200ms)"),
            new NbdParameter("max-seek-time", "the time over the whole range of a head (default 500ms)"),
        ],
        parameters => new SpinningFilter
        {
            Heads = parameters.Integer("heads") ?? 1,
            SeparateHeads = parameters.Boolean("separate-heads") ?? false,
            MinSeekTime = parameters.Delay("min-seek-time") ?? TimeSpan.FromMilliseconds(10),
            HalfSeekTime = parameters.Delay("half-seek-time") ?? TimeSpan.FromMilliseconds(200),
            MaxSeekTime = parameters.Delay("max-seek-time") ?? TimeSpan.FromMilliseconds(500),
        });

    /// <summary>The number of heads, from 1 to 64. One by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1 or more than 64.</exception>
    public int Heads
    {
        get;
        init => field = value is >= 1 and <= 64
            ? value
            : throw new ArgumentOutOfRangeException(nameof(value), value, "A disk has from 1 to 64 heads.");
    } = 1;

    /// <summary>Whether each head has an arm of its own. False by default: they all move together.</summary>
    public bool SeparateHeads { get; init; }

    /// <summary>The time to the next track, up to an hour. 10 milliseconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan MinSeekTime { get; init => field = Checked(value); } = TimeSpan.FromMilliseconds(10);

    /// <summary>The time over half of the range of a head, up to an hour. 200 milliseconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan HalfSeekTime { get; init => field = Checked(value); } = TimeSpan.FromMilliseconds(200);

    /// <summary>The time over the whole range of a head, up to an hour. 500 milliseconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan MaxSeekTime { get; init => field = Checked(value); } = TimeSpan.FromMilliseconds(500);

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "spinning";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this, context.ExportName);
    }

    private Platter PlatterOf(string export, long size)
    {
        lock (_lock)
        {
            if (!_platters.TryGetValue(export, out Platter? platter) || platter.Size != size)
            {
                var curve = new SeekCurve(MinSeekTime, HalfSeekTime, MaxSeekTime);
                _platters[export] = platter = new Platter(size, Heads, SeparateHeads, curve, TimeProvider);
            }
            platter.Users++;
            return platter;
        }
    }

    // Clients make up names: what nobody uses must not stay.
    private void Release(string export, Platter platter)
    {
        lock (_lock)
        {
            if (--platter.Users == 0 && _platters.GetValueOrDefault(export) == platter)
            {
                _platters.Remove(export);
            }
        }
    }

    private static TimeSpan Checked(TimeSpan value)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, Longest);
        return value;
    }

    private sealed class Handle(SpinningFilter filter, string export) : RequestHandle
    {
        private Platter? _platter;

        public override async ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = await base.GetInfoAsync(next, cancellationToken).ConfigureAwait(false);
            _platter ??= filter.PlatterOf(export, info.Size);
            return info with { IsRotational = true };
        }

        public override ValueTask CloseAsync()
        {
            if (Interlocked.Exchange(ref _platter, null) is { } platter)
            {
                filter.Release(export, platter);
            }
            return default;
        }

        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            if (call.Operation is LayerOperation.Read or LayerOperation.ReadSparse or LayerOperation.Write or LayerOperation.Zero)
            {
                TimeSpan wait = _platter!.Seek(call.Offset);
                if (wait > TimeSpan.Zero)
                {
                    return RunLaterAsync(call, next, wait, cancellationToken);
                }
            }
            return call.Invoke(next, cancellationToken);
        }

        private async ValueTask RunLaterAsync(LayerCall call, NextContext next, TimeSpan wait, CancellationToken cancellationToken)
        {
            try
            {
                // Timers count whole milliseconds, and not too many of them; a head is never there early.
                var whole = TimeSpan.FromMilliseconds(Math.Ceiling(wait.TotalMilliseconds));
                await Task.Delay(whole < TimerRange.Longest ? whole : TimerRange.Longest, filter.TimeProvider, cancellationToken)
                    .ConfigureAwait(false);
            }
            catch (OperationCanceledException e)
            {
                throw new NbdException(NbdError.Shutdown, "the client left while the disk sought", e);
            }
            await call.Invoke(next, cancellationToken).ConfigureAwait(false);
        }
    }
}
