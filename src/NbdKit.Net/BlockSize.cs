using System.Numerics;

namespace NbdKit;

/// <summary>
/// The sizes of request that an export can take, in bytes ("Size constraints" in the protocol text). The default value
/// says nothing: any alignment, any size up to the server's limit.
/// </summary>
public readonly record struct BlockSize
{
    /// <summary>The largest value of <see cref="Maximum"/>; it means that only the server's own limit counts.</summary>
    public const long Unlimited = uint.MaxValue;

    /// <summary>Creates block size constraints.</summary>
    /// <param name="minimum">Offsets and lengths are multiples of this: a power of two from 1 to 65,536.</param>
    /// <param name="preferred">The size that performs best: a power of two from 512 to 32 MiB, not below the minimum.</param>
    /// <param name="maximum">
    /// The largest payload of one request: a multiple of <paramref name="minimum"/> not below
    /// <paramref name="preferred"/>, or <see cref="Unlimited"/>.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException">A value breaks its rule.</exception>
    public BlockSize(long minimum, long preferred, long maximum = Unlimited)
    {
        if (minimum is < 1 or > 65_536 || !BitOperations.IsPow2(minimum))
        {
            throw new ArgumentOutOfRangeException(
                nameof(minimum), minimum, "The minimum block size must be a power of two from 1 to 65,536.");
        }
        if (preferred is < 512 or > 32 << 20 || !BitOperations.IsPow2(preferred) || preferred < minimum)
        {
            throw new ArgumentOutOfRangeException(
                nameof(preferred), preferred, "The preferred block size must be a power of two from 512 to 32 MiB, not below the minimum.");
        }
        if (maximum != Unlimited && (maximum < preferred || maximum > Unlimited || maximum % minimum != 0))
        {
            throw new ArgumentOutOfRangeException(
                nameof(maximum), maximum, "The maximum block size must be a multiple of the minimum, not below the preferred size.");
        }
        Minimum = minimum;
        Preferred = preferred;
        Maximum = maximum;
    }

    /// <summary>Offsets and lengths are multiples of this many bytes; 0 if nothing is known.</summary>
    public long Minimum { get; }

    /// <summary>The size in bytes that performs best; 0 if nothing is known.</summary>
    public long Preferred { get; }

    /// <summary>The largest payload in bytes; 0 if nothing is known, <see cref="Unlimited"/> for no limit.</summary>
    public long Maximum { get; }

    /// <summary>Whether the layer said anything about block sizes.</summary>
    public bool IsKnown => Minimum != 0;

    /// <summary>The same constraints for a layer that works in blocks of its own, if they allow requests of that size.</summary>
    /// <param name="blockSize">The size of the layer's blocks.</param>
    internal BlockSize PreferringAtLeast(int blockSize)
    {
        if (!IsKnown)
        {
            return new BlockSize(1, blockSize);
        }
        return blockSize > Preferred && blockSize <= Maximum ? new BlockSize(Minimum, blockSize, Maximum) : this;
    }
}
