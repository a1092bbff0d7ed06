using System.Numerics;

namespace NbdKit.Filters;

/// <summary>
/// Advertises other block sizes than the layer below, and says what becomes of requests that break them
/// (nbdkit-blocksize-policy-filter(1)).
/// </summary>
/// <remarks>
/// What is not set comes from the layer below, or is 1, 4,096 and unlimited; a preferred size that is not set is moved
/// between the other two. Opening an export fails with EINVAL if the three do not go together. A request that breaks the
/// block sizes of the layer below is refused with EINVAL always; nbdkit leaves that to its plugins. Safe for any number of
/// exports and connections.
/// </remarks>
public sealed class BlockSizePolicyFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "blocksize-policy",
        "advertise block sizes and say what becomes of requests that break them",
        [
            new NbdParameter("blocksize-minimum", "a power of two up to 64K (default: that of the layer below, or 1)"),
            new NbdParameter("blocksize-preferred", "a power of two from 512 to 32M (default: that of the layer below, or 4K)"),
            new NbdParameter("blocksize-maximum", "a multiple of the minimum (default: that of the layer below, or unlimited)"),
            new NbdParameter(
                "blocksize-error-policy", "allow (passed on, the default), error (EINVAL) or strict-error (also a short tail)"),
            new NbdParameter("blocksize-write-disconnect", "a larger write cuts the client off (default 0: never)"),
        ],
        parameters => new BlockSizePolicyFilter
        {
            Minimum = parameters.Size("blocksize-minimum"),
            Preferred = parameters.Size("blocksize-preferred"),
            Maximum = parameters.Size("blocksize-maximum"),
            ErrorPolicy = parameters.OneOf(
                "blocksize-error-policy",
                ("allow", BlockSizeErrorPolicy.Allow),
                ("error", BlockSizeErrorPolicy.Error),
                ("strict-error", BlockSizeErrorPolicy.StrictError)) ?? BlockSizeErrorPolicy.Allow,
            WriteDisconnect = parameters.Size("blocksize-write-disconnect") is > 0 and var largest ? largest : null,
        });

    /// <summary>The minimum block size in bytes, or null for that of the layer below.</summary>
    /// <value>Null by default; otherwise a power of two from 1 to 65,536.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a size.</exception>
    public long? Minimum
    {
        get;
        init
        {
            if (value is < 1 or > 65_536 || (value is { } size && !BitOperations.IsPow2(size)))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Minimum), value, "The minimum block size must be a power of two from 1 to 65,536.");
            }
            field = value;
        }
    }

    /// <summary>The preferred block size in bytes, or null for that of the layer below.</summary>
    /// <value>Null by default; otherwise a power of two from 512 to 32 MiB.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a size.</exception>
    public long? Preferred
    {
        get;
        init
        {
            if (value is < 512 or > 32 << 20 || (value is { } size && !BitOperations.IsPow2(size)))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Preferred), value, "The preferred block size must be a power of two from 512 to 32 MiB.");
            }
            field = value;
        }
    }

    /// <summary>The maximum block size in bytes, or null for that of the layer below.</summary>
    /// <value>Null by default; otherwise from 512 to <see cref="BlockSize.Unlimited"/>, a multiple of the minimum.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a size.</exception>
    public long? Maximum
    {
        get;
        init
        {
            if (value is < 512 or > BlockSize.Unlimited)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Maximum), value, "The maximum block size must be from 512 to 2^32-1.");
            }
            field = value;
        }
    }

    /// <summary>What becomes of requests that break the advertised block sizes.</summary>
    /// <value><see cref="BlockSizeErrorPolicy.Allow"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a policy.</exception>
    public BlockSizeErrorPolicy ErrorPolicy
    {
        get;
        init
        {
            if (value is < BlockSizeErrorPolicy.Allow or > BlockSizeErrorPolicy.StrictError)
            {
                throw new ArgumentOutOfRangeException(nameof(ErrorPolicy), value, "Not an error policy.");
            }
            field = value;
        }
    }

    /// <summary>
    /// A client that writes more than this many bytes at once is cut off, as some servers do; or null for never. The write
    /// fails with ESHUTDOWN where there is no client.
    /// </summary>
    /// <value>Null by default; otherwise 1 or more.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? WriteDisconnect
    {
        get;
        init
        {
            if (value is { } largest)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(largest, 1, nameof(WriteDisconnect));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "blocksize-policy";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new BlockSizePolicyHandle(this, context.Connection);
    }

    /// <summary>What is advertised over a layer that has these block sizes.</summary>
    internal BlockSize Over(BlockSize below)
    {
        if (Minimum is null && Preferred is null && Maximum is null)
        {
            return below;
        }
        long minimum = Minimum ?? Math.Max(1, below.Minimum);
        long maximum = Maximum ?? (below.Maximum > 0 ? below.Maximum : BlockSize.Unlimited);
        long preferred = Preferred ?? Math.Max(minimum, below.Preferred > 0 ? below.Preferred : 4096);
        if (Preferred is null && preferred > maximum)
        {
            preferred = (long)(BitOperations.RoundUpToPowerOf2((ulong)maximum + 1) >> 1);
        }
        try
        {
            return new BlockSize(minimum, preferred, maximum);
        }
        catch (ArgumentOutOfRangeException)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the block sizes {minimum} (minimum), {preferred} (preferred) and {maximum} (maximum) do not go together");
        }
    }
}
