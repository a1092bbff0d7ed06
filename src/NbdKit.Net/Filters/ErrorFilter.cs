using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Makes requests fail, at random or as a function decides, to test what clients do about it. A request that fails does not
/// reach the layer below. Corresponds to nbdkit-error-filter(1).
/// </summary>
/// <remarks>
/// Opening, flushing and closing never fail here. Without any rule the filter does nothing. The rules, and
/// <see cref="Enabled"/>, may be changed at any time and from any thread, also while the filter serves; they hold for requests
/// that begin afterwards.
/// </remarks>
public sealed partial class ErrorFilter : INbdFilter, INbdFilterHandle
{
    private Random _random = Random.Shared;

    /// <summary>The rule for every operation that has none of its own; null, the default, for no errors.</summary>
    public ErrorRule? All { get => Volatile.Read(ref field); set => Volatile.Write(ref field, value); }

    /// <summary>The rule for reads, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Read { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>The rule for writes, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Write { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>The rule for trims, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Trim { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>The rule for zeroes, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Zero { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>The rule for questions about extents, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Extents { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>The rule for prefetches, or null for that of <see cref="All"/>.</summary>
    public ErrorRule? Cache { get => Volatile.Read(ref field) ?? All; set => Volatile.Write(ref field, value); }

    /// <summary>Whether requests may fail at all. True by default.</summary>
    public bool Enabled { get => Volatile.Read(ref field); set => Volatile.Write(ref field, value); } = true;

    /// <summary>
    /// Called for every request before the rules are asked: returns the error to fail it with, or null to leave it to the
    /// rules. Called by several threads at once. Null by default.
    /// </summary>
    public Func<ErrorRequest, NbdError?>? Decide { get; init; }

    /// <summary>
    /// The seed of the random numbers: the same sequence of requests then meets the same errors. Null, the default, for
    /// different ones each time.
    /// </summary>
    public int? Seed
    {
        get;
        init
        {
            field = value;
            _random = value is { } seed ? new Random(seed) : Random.Shared;
        }
    }

    /// <inheritdoc/>
    public string Name => "error";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        // What would be emulated above this layer would meet the rules of the reads and writes that it is made of: have it
        // come through here as what it is, and be emulated below. Also without a rule: there may be one later.
        NbdExportInfo info = next.Info;
        return new(info with
        {
            CanZero = info.CanZero.ComesThrough(),
            CanCache = info.CanCache.ComesThrough(),
            CanExtents = true,
            // A read has the errors of reads, not also those of extents.
            CanReadSparse = info.CanReadSparse.ComesThrough(),
        });
    }

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => Inject(Read, ErrorOperation.Read, offset, buffer.Length, RequestFlags.None) is { } error
            ? ValueTask.FromException(error)
            : next.ReadAsync(buffer, offset, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Inject(Read, ErrorOperation.Read, offset, buffer.Length, RequestFlags.None) is { } error
            ? ValueTask.FromException(error)
            : next.ReadSparseAsync(buffer, offset, extents, cancellationToken);

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => Inject(Write, ErrorOperation.Write, offset, data.Length, flags) is { } error
            ? ValueTask.FromException(error)
            : next.WriteAsync(data, offset, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Inject(Trim, ErrorOperation.Trim, offset, length, flags) is { } error
            ? ValueTask.FromException(error)
            : next.TrimAsync(offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Inject(Zero, ErrorOperation.Zero, offset, length, flags) is { } error
            ? ValueTask.FromException(error)
            : next.ZeroAsync(offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => Inject(Cache, ErrorOperation.Cache, offset, length, RequestFlags.None) is { } error
            ? ValueTask.FromException(error)
            : next.CacheAsync(offset, length, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Inject(Extents, ErrorOperation.Extents, offset, length, flags) is { } error
            ? ValueTask.FromException(error)
            : next.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    private NbdException? Inject(
        ErrorRule? rule, ErrorOperation operation, long offset, long length, RequestFlags flags)
    {
        if (!Enabled)
        {
            return null;
        }
        if (Decide?.Invoke(new ErrorRequest(operation, offset, length, flags)) is { } decided)
        {
            return new NbdException(decided, $"error decided on for this {operation} of {length} bytes at {offset}");
        }
        // The number is drawn before the file is looked for: with a seed, the n-th request always draws the same one.
        return rule is { Rate: > 0 } && Draw() < rule.Rate && (rule.File is null || File.Exists(rule.File))
            ? new NbdException(rule.Error, $"error injected into this {operation} of {length} bytes at {offset}")
            : null;
    }

    private double Draw()
    {
        if (Seed is null)
        {
            return _random.NextDouble();
        }
        lock (_random)
        {
            return _random.NextDouble();
        }
    }

    bool INbdFilterHandle.KeepsNext => true;
}
