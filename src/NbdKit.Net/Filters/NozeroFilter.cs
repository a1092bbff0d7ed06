using System.Buffers;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Hides, emulates or restricts requests to zero a range (nbdkit-nozero-filter(1)), to measure what they are worth and
/// to test how clients do without.
/// </summary>
/// <remarks>
/// An export that cannot be written is passed through unchanged. Otherwise opening it fails with EINVAL if
/// <see cref="Mode"/> passes zeroes on and the layer below takes none.
/// </remarks>
public sealed class NozeroFilter : INbdFilter, INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    private const int ChunkBytes = 1 << 20;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "nozero",
        "hide, emulate or restrict requests to zero a range",
        [
            new NbdParameter(
                "zeromode",
                "none (not offered, the default), emulate (by writing), notrim (space stays allocated) "
                + "or plugin (passed on)"),
            new NbdParameter(
                "fastzeromode",
                "default (what suits zeromode), none (not offered), slow (always refused) "
                + "or ignore (treated as any other)"),
        ],
        parameters => new NozeroFilter
        {
            Mode = parameters.OneOf(
                "zeromode",
                ("none", ZeroMode.None),
                ("emulate", ZeroMode.Emulate),
                ("notrim", ZeroMode.Notrim),
                ("plugin", ZeroMode.Plugin)) ?? ZeroMode.None,
            FastMode = parameters.OneOf(
                "fastzeromode",
                ("default", FastZeroMode.Default),
                ("none", FastZeroMode.None),
                ("slow", FastZeroMode.Slow),
                ("ignore", FastZeroMode.Ignore)) ?? FastZeroMode.Default,
        });

    /// <summary>What is made of requests to zero a range.</summary>
    /// <value><see cref="ZeroMode.None"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a mode.</exception>
    public ZeroMode Mode
    {
        get;
        init
        {
            if (value is < ZeroMode.None or > ZeroMode.Plugin)
            {
                throw new ArgumentOutOfRangeException(nameof(Mode), value, "Not a zero mode.");
            }
            field = value;
        }
    }

    /// <summary>What is made of fast zeroes.</summary>
    /// <value><see cref="FastZeroMode.Default"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a mode.</exception>
    public FastZeroMode FastMode
    {
        get;
        init
        {
            if (value is < FastZeroMode.Default or > FastZeroMode.Ignore)
            {
                throw new ArgumentOutOfRangeException(nameof(FastMode), value, "Not a fast zero mode.");
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "nozero";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        if (next.Info is { CanWrite: true, CanZero: Support.None } && Mode is ZeroMode.Notrim or ZeroMode.Plugin)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"zeromode={(Mode == ZeroMode.Notrim ? "notrim" : "plugin")} needs a layer below that can zero; "
                + $"{next.Backend.Name} cannot");
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        if (!info.CanWrite)
        {
            return new(info);
        }
        if (Mode == ZeroMode.None)
        {
            return new(info with { CanZero = Support.None, CanFastZero = false });
        }
        return new(info with
        {
            // The library refuses fast zeroes of a layer that says Emulate before they get here, so one that is to be
            // ignored needs Native.
            CanZero = FastMode == FastZeroMode.Ignore
                ? Support.Native
                : Mode == ZeroMode.Emulate ? Support.Emulate : info.CanZero,
            CanFastZero = FastMode switch
            {
                FastZeroMode.None => false,
                FastZeroMode.Default => Mode == ZeroMode.Emulate || info.CanFastZero,
                _ => true,
            },
        });
    }

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if ((flags & RequestFlags.FastZero) != 0)
        {
            if (FastMode == FastZeroMode.Slow)
            {
                throw new NbdException(NbdError.NotSupported, "fast zeroes are refused by fastzeromode=slow");
            }
            if (FastMode == FastZeroMode.Ignore)
            {
                flags &= ~RequestFlags.FastZero;
            }
        }
        if (Mode == ZeroMode.Emulate)
        {
            return WriteZeroesAsync(next, offset, length, flags & RequestFlags.Fua, cancellationToken);
        }
        return next.ZeroAsync(
            offset, length, Mode == ZeroMode.Notrim ? flags & ~RequestFlags.MayTrim : flags, cancellationToken);
    }

    // Only for fast zeroes that are to be ignored; all other emulation is the library's.
    private static async ValueTask WriteZeroesAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long maximum = next.Info.BlockSize.Maximum;
        int chunk = (int)Math.Min(length, maximum is > 0 and < ChunkBytes ? maximum : ChunkBytes);
        byte[] zeroes = ArrayPool<byte>.Shared.Rent(chunk);
        try
        {
            zeroes.AsSpan(0, chunk).Clear();
            while (length > 0)
            {
                int count = (int)Math.Min(length, chunk);
                await next.WriteAsync(zeroes.AsMemory(0, count), offset, flags, cancellationToken)
                    .ConfigureAwait(false);
                offset += count;
                length -= count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(zeroes);
        }
    }

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;

    /// <inheritdoc/>
    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => operation != LayerOperation.Zero;

    /// <inheritdoc/>
    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
