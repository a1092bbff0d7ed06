using System.Numerics;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Lets clients send requests of any alignment and size to a layer that takes only some (nbdkit-blocksize-filter(1)):
/// large ones are split, and blocks that are touched in part are read, changed and written back.
/// </summary>
/// <remarks>
/// <para>
/// The export becomes a whole number of blocks: if the size of the layer below is not a multiple of the minimum block
/// size, the bytes after the last whole block are not served.
/// </para>
/// <para>
/// While a block is read and written back, no other write or zero reaches it, from any connection of this chain;
/// requests for other blocks run in parallel. A request that is split is not atomic: another one may run between its
/// pieces. The parts of a trim that do not cover a whole block are left alone, as the protocol allows. A fast zero that
/// is not aligned, or longer than <see cref="MaxLength"/>, is refused, as it would take several requests.
/// </para>
/// </remarks>
public sealed class BlockSizeFilter : INbdFilter
{
    private const long LargestBlock = 65_536;

    // Shared by all exports, as several names may stand for the same bytes: at worst two requests wait in vain.
    private readonly RangeLock _locks = new();

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "blocksize",
        "accept requests of any alignment and size",
        [
            new NbdParameter(
                "minblock", "smallest block to pass on, a power of two up to 64K (default: the layer's minimum, or 1)"),
            new NbdParameter("maxdata", "largest read or write to pass on (default: the layer's maximum, or 64M)"),
            new NbdParameter("maxlen", "largest trim or zero to pass on (default: no limit)"),
        ],
        parameters =>
        {
            var filter = new BlockSizeFilter
            {
                MinBlock = parameters.Size("minblock"),
                MaxData = parameters.Size("maxdata"),
                MaxLength = parameters.Size("maxlen"),
            };
            filter.CheckMultiples();
            return filter;
        });

    /// <summary>
    /// The smallest block in bytes that is passed on, or null for the minimum block size of the layer below (1 if it
    /// has none). A minimum of the layer below that is larger takes its place.
    /// </summary>
    /// <value>Null by default; otherwise a power of two from 1 to 65,536.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a power of two.</exception>
    public long? MinBlock
    {
        get;
        init
        {
            if (value is { } block && (block is < 1 or > LargestBlock || !BitOperations.IsPow2(block)))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(MinBlock), value, "The minimum block size must be a power of two from 1 to 65,536.");
            }
            field = value;
        }
    }

    /// <summary>
    /// The largest read, write or cache request in bytes that is passed on, or null for 64 MiB. A maximum of the layer
    /// below that is smaller takes its place, and so does <see cref="MaxLength"/> if this is null.
    /// </summary>
    /// <value>Null by default; otherwise a multiple of <see cref="MinBlock"/>, at most 2^31-1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1 or more than 2^31-1.</exception>
    public long? MaxData
    {
        get;
        init
        {
            if (value is < 1 or > int.MaxValue)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(MaxData), value, "The largest read or write must be from 1 to 2^31-1 bytes.");
            }
            field = value;
        }
    }

    /// <summary>
    /// The largest trim, zero or question about extents in bytes that is passed on, or null for no
    /// limit.
    /// </summary>
    /// <value>Null by default; otherwise a multiple of <see cref="MinBlock"/>.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? MaxLength
    {
        get;
        init
        {
            if (value is < 1)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(MaxLength), value, "The largest length must be at least 1 byte.");
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "blocksize";

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">
    /// <see cref="MaxData"/> or <see cref="MaxLength"/> is not a multiple of <see cref="MinBlock"/>.
    /// </exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        CheckMultiples();
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new BlockSizeHandle(this, _locks);
    }

    private void CheckMultiples()
    {
        // Each is checked where it is set; how they go together only here, as they may be set in any order.
        if (MinBlock is { } block)
        {
            if (MaxData % block is not (null or 0))
            {
                throw new ArgumentException($"blocksize: maxdata={MaxData} is not a multiple of minblock={block}.");
            }
            if (MaxLength % block is not (null or 0))
            {
                throw new ArgumentException($"blocksize: maxlen={MaxLength} is not a multiple of minblock={block}.");
            }
        }
    }
}
