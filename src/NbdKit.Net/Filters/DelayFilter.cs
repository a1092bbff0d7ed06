using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Makes requests slow: waits before each operation of a kind, to simulate a slow or distant disk. Many requests wait at the
/// same time. Corresponds to nbdkit-delay-filter(1).
/// </summary>
/// <remarks>
/// Flushes are never delayed. A request whose client goes away while it waits fails with
/// <see cref="NbdError.Shutdown"/> and never reaches the layer below. A delay of zero costs nothing.
/// The delays may be changed at any time and from any thread, also while the filter serves: what begins afterwards waits the
/// new time, what waits already is not changed.
/// </remarks>
public sealed class DelayFilter : INbdFilter, INbdFilterHandle
{
    // In ticks, which can be changed while other threads read them.
    private long _read;
    private long _write;
    private long _zero;
    private long _trim;
    private long _extents;
    private long _cache;
    private long _open;
    private long _close;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "delay",
        "delays requests",
        [
            new NbdParameter("rdelay", "delay of reads (default 0)"),
            new NbdParameter("wdelay", "delay of writes, zeroes and trims (default 0)"),
            new NbdParameter("delay-read", "delay of reads; the same as rdelay"),
            new NbdParameter("delay-write", "delay of writes (default wdelay)"),
            new NbdParameter("delay-zero", "delay of zeroes (default wdelay)"),
            new NbdParameter("delay-trim", "delay of trims (default wdelay)"),
            new NbdParameter("delay-extents", "delay of questions about extents (default 0)"),
            new NbdParameter("delay-cache", "delay of prefetches (default 0)"),
            new NbdParameter("delay-fast-zero", "whether fast zeroes are delayed (default yes) or refused at once (no)"),
            new NbdParameter("delay-open", "delay of opening an export (default 0)"),
            new NbdParameter("delay-close", "delay of closing an export (default 0)"),
        ],
        Create);

    /// <summary>How long each read waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Read
    {
        get => Get(ref _read);
        set => Set(ref _read, value);
    }

    /// <summary>How long each write waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Write
    {
        get => Get(ref _write);
        set => Set(ref _write, value);
    }

    /// <summary>How long each zero waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Zero
    {
        get => Get(ref _zero);
        set => Set(ref _zero, value);
    }

    /// <summary>How long each trim waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Trim
    {
        get => Get(ref _trim);
        set => Set(ref _trim, value);
    }

    /// <summary>How long each question about extents waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Extents
    {
        get => Get(ref _extents);
        set => Set(ref _extents, value);
    }

    /// <summary>How long each prefetch waits, up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Cache
    {
        get => Get(ref _cache);
        set => Set(ref _cache, value);
    }

    /// <summary>How long it takes to open an export, before the layer below is opened; up to 49 days. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Open
    {
        get => Get(ref _open);
        set => Set(ref _open, value);
    }

    /// <summary>
    /// How long it takes to close an export after its last request, before the layer below is finalized; up to 49 days. Zero
    /// by default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan Close
    {
        get => Get(ref _close);
        set => Set(ref _close, value);
    }

    /// <summary>
    /// Whether fast zeroes wait like all zeroes. If false, and zeroes are delayed at all, fast zeroes are refused at once.
    /// True by default.
    /// </summary>
    public bool DelayFastZero { get; init; } = true;

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "delay";

    private bool RefusesFastZero => !DelayFastZero && Zero > TimeSpan.Zero;

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await WaitAsync(Open, cancellationToken).ConfigureAwait(false);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        // What would be emulated above this layer would be delayed as the reads and writes that it is made of: have it come
        // through here as what it is, and be emulated below. Also without a delay: there may be one later.
        NbdExportInfo info = next.Info;
        return new(info with
        {
            CanZero = info.CanZero.ComesThrough(),
            CanFastZero = info.CanFastZero || (!DelayFastZero && info.CanZero != Support.None),
            CanCache = info.CanCache.ComesThrough(),
            CanExtents = true,
            CanReadSparse = info.CanReadSparse.ComesThrough(),
        });
    }

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => Read == TimeSpan.Zero
            ? next.ReadAsync(buffer, offset, cancellationToken)
            : ReadLaterAsync(next, buffer, offset, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Read == TimeSpan.Zero
            ? next.ReadSparseAsync(buffer, offset, extents, cancellationToken)
            : ReadSparseLaterAsync(next, buffer, offset, extents, cancellationToken);

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => Write == TimeSpan.Zero
            ? next.WriteAsync(data, offset, flags, cancellationToken)
            : WriteLaterAsync(next, data, offset, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Trim == TimeSpan.Zero
            ? next.TrimAsync(offset, length, flags, cancellationToken)
            : TrimLaterAsync(next, offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if ((flags & RequestFlags.FastZero) != 0 && (RefusesFastZero || !next.Info.CanFastZero))
        {
            throw new NbdException(NbdError.NotSupported, "zeroes are delayed, or not fast below: none is fast");
        }
        return Zero == TimeSpan.Zero
            ? next.ZeroAsync(offset, length, flags, cancellationToken)
            : ZeroLaterAsync(next, offset, length, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => Cache == TimeSpan.Zero
            ? next.CacheAsync(offset, length, cancellationToken)
            : CacheLaterAsync(next, offset, length, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Extents == TimeSpan.Zero
            ? next.ExtentsAsync(offset, length, flags, extents, cancellationToken)
            : ExtentsLaterAsync(next, offset, length, flags, extents, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
    {
        try
        {
            await WaitAsync(Close, cancellationToken).ConfigureAwait(false);
        }
        catch (NbdException)
        {
            // The end has to be quick; a delay that is cut short is no failure to close.
        }
    }

    private async ValueTask ReadLaterAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await WaitAsync(Read, cancellationToken).ConfigureAwait(false);
        await next.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask ReadSparseLaterAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        await WaitAsync(Read, cancellationToken).ConfigureAwait(false);
        await next.ReadSparseAsync(buffer, offset, extents, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask WriteLaterAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        await WaitAsync(Write, cancellationToken).ConfigureAwait(false);
        await next.WriteAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask TrimLaterAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await WaitAsync(Trim, cancellationToken).ConfigureAwait(false);
        await next.TrimAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask ZeroLaterAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await WaitAsync(Zero, cancellationToken).ConfigureAwait(false);
        await next.ZeroAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask CacheLaterAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        await WaitAsync(Cache, cancellationToken).ConfigureAwait(false);
        await next.CacheAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask ExtentsLaterAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        await WaitAsync(Extents, cancellationToken).ConfigureAwait(false);
        await next.ExtentsAsync(offset, length, flags, extents, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask WaitAsync(TimeSpan delay, CancellationToken cancellationToken)
    {
        if (delay == TimeSpan.Zero)
        {
            return;
        }
        try
        {
            await Task.Delay(delay, TimeProvider, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException e)
        {
            throw new NbdException(NbdError.Shutdown, "the client left during a delay", e);
        }
    }

    private static TimeSpan Get(ref long ticks) => TimeSpan.FromTicks(Volatile.Read(ref ticks));

    private static void Set(ref long ticks, TimeSpan value) => Volatile.Write(ref ticks, TimerRange.Checked(value).Ticks);

    private static DelayFilter Create(NbdParameters parameters)
    {
        TimeSpan write = parameters.Delay("wdelay") ?? TimeSpan.Zero;
        return new DelayFilter
        {
            Read = parameters.Delay("delay-read") ?? parameters.Delay("rdelay") ?? TimeSpan.Zero,
            Write = parameters.Delay("delay-write") ?? write,
            Zero = parameters.Delay("delay-zero") ?? write,
            Trim = parameters.Delay("delay-trim") ?? write,
            Extents = parameters.Delay("delay-extents") ?? TimeSpan.Zero,
            Cache = parameters.Delay("delay-cache") ?? TimeSpan.Zero,
            Open = parameters.Delay("delay-open") ?? TimeSpan.Zero,
            Close = parameters.Delay("delay-close") ?? TimeSpan.Zero,
            DelayFastZero = parameters.Boolean("delay-fast-zero") ?? true,
        };
    }

    bool INbdFilterHandle.KeepsNext => true;
}
