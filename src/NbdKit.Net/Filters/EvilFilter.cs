using System.Runtime.CompilerServices;
using NbdKit.Filters.Evil;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Corrupts bits of what is read, to test whether anybody notices; what is written reaches the layers below intact. Corresponds to
/// nbdkit-evil-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Holes that a client reads as holes, or leaves out because it asked where they are, stay intact; put
/// <see cref="NoextentsFilter"/> below to have them corrupted too.
/// </para>
/// <para>
/// Differences from nbdkit: any probability is taken as it is, errors may come in bursts (<see cref="Burst"/>), connections do not
/// disturb each other, and bits that are stuck now and then are so in each read anew. The bits that a seed means are others than
/// nbdkit's, and may be others in the next version.
/// </para>
/// </remarks>
public sealed partial class EvilFilter : INbdFilter, INbdFilterHandle
{
    // Above it, the many bits of a large read would keep others waiting.
    private const double MostAtOnce = 1e-3;

    private BadBits _bits;
    private double _probability;
    private ulong _seed;

    // Of the numbers that are not to be the same twice; shared by all reads.
    private long _chances;

    /// <summary>What is done to bits. <see cref="EvilMode.StuckBits"/> by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such mode.</exception>
    public EvilMode Mode
    {
        get;
        init => field = Enum.IsDefined(value)
            ? value
            : throw new ArgumentOutOfRangeException(nameof(value), value, "There is no such way to be evil.");
    } = EvilMode.StuckBits;

    /// <summary>
    /// How likely each bit is to be bad, from 0, none, to 1, all. Null, the default, for 1e-8, or 1e-6 for
    /// <see cref="EvilMode.StuckWires"/>.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not between 0 and 1.</exception>
    public double? Probability { get; init => field = value is { } given ? Checked(given) : null; }

    /// <summary>
    /// How likely a stuck bit is to show, in each read anew: from 0, never, to 1, the default, always. Means nothing for
    /// <see cref="EvilMode.CosmicRays"/>.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not between 0 and 1.</exception>
    public double StuckProbability { get; init => field = Checked(value); } = 1;

    /// <summary>
    /// How many neighbouring bits are bad together, from 1, the default, to 2^20. The share of all bits that are bad stays
    /// <see cref="Probability"/>: they only come in lumps.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1 or more than 2^20.</exception>
    public int Burst
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 1 << 20);
            field = value;
        }
    } = 1;

    /// <summary>Decides which bits are bad. Null, the default, for others each time.</summary>
    public int? Seed { get; init; }

    /// <inheritdoc/>
    public string Name => "evil";

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _probability = Probability ?? (Mode == EvilMode.StuckWires ? 1e-6 : 1e-8);
        _bits = _probability > 0 ? new BadBits(_probability, Burst) : default;
        _seed = SplitMix.Mix((ulong)(Seed ?? Random.Shared.NextInt64()));
        _chances = (long)_seed;
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        NbdExportInfo info = next.Info;
        // Read in one go, whatever holes there are: wires are those of the client's request.
        return new(info with
        {
            CanReadSparse = info.CanReadSparse.ComesThrough(),
            IsBlocking = info.IsBlocking || _probability > MostAtOnce,
        });
    }

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        return CorruptAfter(next.ReadAsync(buffer, offset, cancellationToken), buffer, offset);
    }

    /// <inheritdoc/>
    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        // What lies where the holes are is nobody's.
        return CorruptAfter(next.ReadSparseAsync(buffer, offset, extents, cancellationToken), buffer, offset);
    }

    private ValueTask CorruptAfter(ValueTask read, Memory<byte> buffer, long offset)
    {
        if (!read.IsCompletedSuccessfully)
        {
            return CorruptAfterAsync(read, buffer, offset);
        }
        read.GetAwaiter().GetResult();
        Corrupt(buffer.Span, offset);
        return default;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask CorruptAfterAsync(ValueTask read, Memory<byte> buffer, long offset)
    {
        await read.ConfigureAwait(false);
        Corrupt(buffer.Span, offset);
    }

    private void Corrupt(Span<byte> buffer, long offset)
    {
        if (_probability == 0)
        {
            return;
        }
        ulong chances = SplitMix.Mix((ulong)Interlocked.Add(ref _chances, unchecked((long)SplitMix.Step)));
        if (Mode == EvilMode.CosmicRays)
        {
            _bits.Flip(buffer, chances);
            return;
        }
        var chance = new SplitMix(chances);
        if (Mode == EvilMode.StuckWires)
        {
            _bits.Stick(buffer, 0, _seed, StuckProbability, ref chance);
            return;
        }
        while (!buffer.IsEmpty)
        {
            long block = offset / _bits.BlockSize;
            long start = offset % _bits.BlockSize;
            int length = (int)Math.Min(buffer.Length, _bits.BlockSize - start);
            _bits.Stick(buffer[..length], start, SplitMix.Mix(_seed ^ (ulong)block), StuckProbability, ref chance);
            buffer = buffer[length..];
            offset += length;
        }
    }

    private static double Checked(double probability) => probability is >= 0 and <= 1
        ? probability
        : throw new ArgumentOutOfRangeException(nameof(probability), probability, "A probability is a number from 0 to 1.");

    bool INbdFilterHandle.KeepsNext => true;
}
