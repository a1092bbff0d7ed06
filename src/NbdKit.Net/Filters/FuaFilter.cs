namespace NbdKit.Filters;

/// <summary>
/// Changes how forced unit access (FUA) is offered and carried out (nbdkit-fua-filter(1)), to compare what it costs, to
/// make every write durable, or to give durability up for speed.
/// </summary>
/// <remarks>
/// An export that cannot be written is passed through unchanged. Otherwise opening it fails with EINVAL if the layer
/// below does not support what the mode needs.
/// </remarks>
public sealed class FuaFilter : INbdFilter, INbdFilterHandle
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "fua",
        "change how forced unit access and flush are carried out",
        [
            new NbdParameter(
                "fuamode",
                "none (not offered, the default), emulate (by flushing), native (passed on), force (on every request), "
                + "pass (as the layer below) or discard (ignored, and flush too)"),
            new NbdParameter("flush-on-close", "flush when a client leaves (default false)"),
        ],
        parameters => new FuaFilter
        {
            Mode = parameters.OneOf(
                "fuamode",
                ("none", FuaMode.None),
                ("emulate", FuaMode.Emulate),
                ("native", FuaMode.Native),
                ("force", FuaMode.Force),
                ("pass", FuaMode.Pass),
                ("discard", FuaMode.Discard)) ?? FuaMode.None,
            FlushOnClose = parameters.Boolean("flush-on-close") ?? false,
        });

    /// <summary>What is made of forced unit access.</summary>
    /// <value><see cref="FuaMode.None"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a mode.</exception>
    public FuaMode Mode
    {
        get;
        init
        {
            if (value is < FuaMode.None or > FuaMode.Discard)
            {
                throw new ArgumentOutOfRangeException(nameof(Mode), value, "Not a mode of the fua filter.");
            }
            field = value;
        }
    }

    /// <summary>
    /// Whether the layer below is flushed when an export is closed, also if <see cref="Mode"/> makes flushes of clients
    /// do nothing. Needs a layer below that takes flushes.
    /// </summary>
    /// <value>False by default.</value>
    public bool FlushOnClose { get; init; }

    /// <inheritdoc/>
    public string Name => "fua";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        if (!info.CanWrite)
        {
            return default;
        }
        if (Mode == FuaMode.Emulate)
        {
            Require(info.CanFlush, next, "fuamode=emulate", "flush");
        }
        else if (Mode is FuaMode.Native or FuaMode.Force)
        {
            Require(
                info.CanFua != Support.None, next, Mode == FuaMode.Force ? "fuamode=force" : "fuamode=native", "FUA");
        }
        if (FlushOnClose)
        {
            Require(info.CanFlush, next, "flush-on-close", "flush");
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
        return new(Mode switch
        {
            FuaMode.None => info with { CanFua = Support.None },
            // The library then strips the flag and calls FlushAsync here after the request.
            FuaMode.Emulate => info with { CanFua = Support.Emulate },
            FuaMode.Native => info with { CanFua = Support.Native },
            // Flush is offered even if the layer below takes none: a client that asks for durability gets an answer.
            FuaMode.Force or FuaMode.Discard => info with { CanFua = Support.Native, CanFlush = true },
            _ => info,
        });
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
        => next.WriteAsync(data, offset, Changed(flags), cancellationToken);

    /// <inheritdoc/>
    public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
        // With force all that was written is on stable storage already.
        => next.Info.CanWrite && Mode is FuaMode.Force or FuaMode.Discard
            ? default
            : next.FlushAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset, length, Changed(flags), cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.ZeroAsync(offset, length, Changed(flags), cancellationToken);

    /// <inheritdoc/>
    public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
        => FlushOnClose && next.Info.CanWrite ? next.FlushAsync(cancellationToken) : default;

    private RequestFlags Changed(RequestFlags flags) => Mode switch
    {
        FuaMode.Force => flags | RequestFlags.Fua,
        FuaMode.Discard => flags & ~RequestFlags.Fua,
        _ => flags,
    };

    private static void Require(bool supported, NextContext next, string setting, string what)
    {
        if (!supported)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"{setting} needs a layer below that supports {what}; {next.Backend.Name} does not");
        }
    }

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;
}
