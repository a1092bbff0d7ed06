namespace NbdKit.Filters;

/// <summary>
/// Changes the size of the layer below (nbdkit-truncate-filter(1)): cuts it, or extends it by bytes that are zero. Meant for
/// clients that cannot do with a size that is not a multiple of something.
/// </summary>
/// <remarks>
/// <para>
/// <see cref="Size"/> is applied first, then <see cref="RoundUp"/>, then <see cref="RoundDown"/>. What is added reads as
/// zeroes, and is a hole in the extents. Zeroes may be written there, which changes nothing; a write that has other bytes
/// there fails with ENOSPC, as a whole and before anything was written.
/// </para>
/// <para>
/// Opening an export fails with EINVAL if the new size is beyond 2^63-1, or if it cuts into a block of a layer that has a
/// minimum block size: its last bytes could not be reached then. Safe for any number of exports and connections.
/// </para>
/// </remarks>
public sealed class TruncateFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "truncate",
        "cut or extend the layer below, or round its size",
        [
            new NbdParameter("truncate", "the new size (default: that of the layer below)"),
            new NbdParameter("round-up", "round the size up to a multiple of this"),
            new NbdParameter("round-down", "round the size down to a multiple of this"),
        ],
        parameters => new TruncateFilter
        {
            Size = parameters.Size("truncate"),
            RoundUp = parameters.Size("round-up"),
            RoundDown = parameters.Size("round-down"),
        });

    /// <summary>The new size in bytes, or null for that of the layer below.</summary>
    /// <value>Null by default; otherwise 0 or more.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Size
    {
        get;
        init
        {
            if (value is { } size)
            {
                ArgumentOutOfRangeException.ThrowIfNegative(size, nameof(Size));
            }
            field = value;
        }
    }

    /// <summary>The size is rounded up to a multiple of this many bytes, or null to leave it.</summary>
    /// <value>Null by default; otherwise 1 or more. Unlike in nbdkit it need not be a power of two.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? RoundUp
    {
        get;
        init
        {
            if (value is { } multiple)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(multiple, 1, nameof(RoundUp));
            }
            field = value;
        }
    }

    /// <summary>The size is rounded down to a multiple of this many bytes, or null to leave it.</summary>
    /// <value>Null by default; otherwise 1 or more. Unlike in nbdkit it need not be a power of two.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? RoundDown
    {
        get;
        init
        {
            if (value is { } multiple)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(multiple, 1, nameof(RoundDown));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "truncate";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new TruncateHandle(this);
    }

    /// <summary>The size that a layer below gets.</summary>
    internal long SizeOver(NextContext next)
    {
        long size = Size ?? next.Info.Size;
        if (RoundUp is { } up && size % up != 0)
        {
            if (size > long.MaxValue - (up - (size % up)))
            {
                throw new NbdException(
                    NbdError.InvalidArgument, $"{size} bytes cannot be rounded up to a multiple of {up}: that is beyond 2^63-1");
            }
            size += up - (size % up);
        }
        if (RoundDown is { } down)
        {
            size -= size % down;
        }
        long minimum = Math.Max(1, next.Info.BlockSize.Minimum);
        if (size < next.Info.Size && size % minimum != 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the new size of {size} bytes is not a multiple of the minimum block size of {minimum} bytes of "
                + $"{next.Backend.Name}; put the blocksize filter between them");
        }
        return size;
    }
}
