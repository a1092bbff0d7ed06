using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>Says that the disk rotates, or that it does not (nbdkit-rotational-filter(1)).</summary>
/// <remarks>Clients take it as advice: Linux, for one, chooses how to order and read ahead by it. Nothing else is changed.</remarks>
public sealed class RotationalFilter : INbdFilter, INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "rotational",
        "say whether the disk rotates",
        [new NbdParameter("rotational", "whether it does (default true)")],
        parameters => new RotationalFilter { IsRotational = parameters.Boolean("rotational") ?? true });

    /// <summary>What clients are told. True by default.</summary>
    public bool IsRotational { get; init; } = true;

    /// <inheritdoc/>
    public string Name => "rotational";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { IsRotational = IsRotational });

    bool INbdFilterHandle.KeepsNext => true;

    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => true;

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
