using NbdKit.Buffers;

namespace NbdKit.Filters;

/// <summary>Serves a range of the layer below as if it were the whole export (nbdkit-offset-filter(1)).</summary>
/// <remarks>
/// Opening an export fails with EINVAL if the range is not inside it, or if it begins inside a block of a layer that
/// has a minimum block size: then no request could be aligned. Safe for any number of exports and connections.
/// </remarks>
public sealed class OffsetFilter : INbdFilter, INbdFilterHandle, ILendingFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "offset",
        "serve a range of the layer below as a whole export",
        [
            new NbdParameter("offset", "first byte to serve (default 0)"),
            new NbdParameter("range", "number of bytes to serve (default: all that follow)"),
        ],
        parameters => new OffsetFilter { Offset = parameters.Size("offset") ?? 0, Range = parameters.Size("range") });

    /// <summary>First byte of the layer below that is served.</summary>
    /// <value>From 0, the default, to the size of the layer below.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long Offset
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(Offset));
            field = value;
        }
    }

    /// <summary>Number of bytes that are served, or null for all that follow <see cref="Offset"/>.</summary>
    /// <value>Null by default; otherwise 0 or more, and not beyond the end of the layer below.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Range
    {
        get;
        init
        {
            if (value is { } range)
            {
                ArgumentOutOfRangeException.ThrowIfNegative(range, nameof(Range));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "offset";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        long size = next.Info.Size;
        if (Offset > size)
        {
            throw new NbdException(
                NbdError.InvalidArgument, $"offset={Offset} is beyond the {size} bytes of {next.Backend.Name}");
        }
        if (Range > size - Offset)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"offset={Offset} and range={Range} are not inside the {size} bytes of {next.Backend.Name}");
        }
        Window.RequireAligned(next, "the range to serve", Offset);
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { Size = SizeOver(next) });

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => next.ReadAsync(buffer, offset + Offset, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => Window.ReadSparseAsync(next, Offset, buffer, offset, extents, cancellationToken);

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
        => next.WriteAsync(data, offset + Offset, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset + Offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.ZeroAsync(offset + Offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => next.CacheAsync(offset + Offset, length, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Window.ExtentsAsync(next, Offset, SizeOver(next), offset, length, flags, extents, cancellationToken);

    private long SizeOver(NextContext next) => Range ?? next.Info.Size - Offset;

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;

    /// <inheritdoc/>
    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset + Offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset + Offset);
}
