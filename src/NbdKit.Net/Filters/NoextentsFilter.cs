using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Hides what the layer below knows about its extents (nbdkit-noextents-filter(1)): clients that ask are told that all
/// is allocated data, and no meta context but <c>base:allocation</c> is offered.
/// </summary>
public sealed class NoextentsFilter : INbdFilter, INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    private static readonly string[] OnlyAllocation = [ExtentList.BaseAllocation];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "noextents", "hide extents: report that all is data", [], _ => new NoextentsFilter());

    /// <inheritdoc/>
    public string Name => "noextents";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        // "All is data" would be a false answer in any context whose meaning is another one, such as a dirty bitmap.
        => new(next.Info with
        {
            CanExtents = false,
            MetaContexts = OnlyAllocation,
            WideMetaContexts = [],
            CanReadSparse = Support.None,
        });

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;

    /// <inheritdoc/>
    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => operation != LayerOperation.Extents;

    /// <inheritdoc/>
    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
