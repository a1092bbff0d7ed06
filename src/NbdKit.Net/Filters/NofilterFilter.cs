using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Passes everything on unchanged (nbdkit-nofilter-filter(1)): the smallest filter there is, for measuring what a layer
/// costs and as a starting point for new ones.
/// </summary>
public sealed class NofilterFilter : INbdFilter, INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "nofilter", "pass everything on unchanged", [], _ => new NofilterFilter());

    /// <inheritdoc/>
    public string Name => "nofilter";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;

    /// <inheritdoc/>
    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => true;

    /// <inheritdoc/>
    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
