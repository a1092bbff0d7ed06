namespace NbdKit.Filters;

/// <summary>Serves a range of the layer below as if it were the whole export (nbdkit-offset-filter(1)).</summary>
/// <remarks>
/// Opening an export fails with EINVAL if the range is not inside it, or if it begins inside a block of a layer that
/// has a minimum block size: then no request could be aligned. Safe for any number of exports and connections.
/// </remarks>
public sealed class OffsetFilter : INbdFilter
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
        return new Handle(Offset, Range);
    }

    private sealed class Handle(long offset, long? range) : WindowHandle
    {
        public override ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            long size = next.Info.Size;
            if (offset > size)
            {
                throw new NbdException(
                    NbdError.InvalidArgument, $"offset={offset} is beyond the {size} bytes of {next.Backend.Name}");
            }
            if (range > size - offset)
            {
                throw new NbdException(
                    NbdError.InvalidArgument,
                    $"offset={offset} and range={range} are not inside the {size} bytes of {next.Backend.Name}");
            }
            Window.RequireAligned(next, "the range to serve", offset);
            Show(offset, range ?? size - offset);
            return default;
        }
    }
}
