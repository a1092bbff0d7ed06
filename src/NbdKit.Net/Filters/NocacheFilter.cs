using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>Keeps requests to prefetch (NBD_CMD_CACHE) from the layer below (nbdkit-nocache-filter(1)).</summary>
public sealed class NocacheFilter : INbdFilter, INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "nocache",
        "keep requests to prefetch from the layer below",
        [new NbdParameter("cachemode", "none: not offered (default); emulate: read and dropped; nop: accepted and ignored")],
        parameters => new NocacheFilter
        {
            Mode = parameters.OneOf("cachemode", ("none", NocacheMode.None), ("emulate", NocacheMode.Emulate), ("nop", NocacheMode.Nop))
                ?? NocacheMode.None,
        });

    /// <summary>What becomes of the requests.</summary>
    /// <value><see cref="NocacheMode.None"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public NocacheMode Mode
    {
        get;
        init => field = Enum.IsDefined(value) ? value : throw new ArgumentOutOfRangeException(nameof(Mode), value, "There is no such mode.");
    }

    /// <inheritdoc/>
    public string Name => "nocache";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            CanCache = Mode switch
            {
                NocacheMode.None => Support.None,
                NocacheMode.Emulate => Support.Emulate,
                _ => Support.Native,
            },
        });

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken) => default;

    bool INbdFilterHandle.KeepsNext => true;

    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => operation != LayerOperation.Cache;

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
