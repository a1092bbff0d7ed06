using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>One context of <see cref="ExportnameFilter"/>: everything passes, but for the description.</summary>
internal sealed class ExportnameHandle(ExportnameFilter filter, string name) : INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    public bool KeepsNext => true;

    public async ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => filter.Describe is null
            ? next.Info
            : next.Info with
            {
                Description = await filter.Describe(name, next.Info.Description, cancellationToken).ConfigureAwait(false),
            };

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => next.ReadSparseAsync(buffer, offset, extents, cancellationToken);

    public bool LeavesAlone(LayerOperation operation) => true;

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
