using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Extents;

/// <summary>One context of <see cref="ExtentlistFilter"/>.</summary>
internal sealed class ExtentlistHandle(ExtentlistState state) : INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    private static readonly string[] OnlyAllocation = [ExtentList.BaseAllocation];

    private long _size;

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        _size = info.Size;
        return new(info with
        {
            CanExtents = true,
            MetaContexts = info.CanExtents ? info.MetaContexts : OnlyAllocation,
            WideMetaContexts = info.CanExtents ? info.WideMetaContexts : [],
            CanReadSparse = Support.Emulate,
        });
    }

    public bool LeavesAlone(LayerOperation operation)
        => operation is LayerOperation.Read or LayerOperation.Flush or LayerOperation.Cache;

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        RangeLock.Holder held = await state.Changes.EnterAsync(
            offset, offset + data.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            // Before it is written: nobody may be told of a hole where data may be already.
            state.Map.Set(offset, offset + data.Length, ExtentStatus.Data);
            await next.WriteAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            state.Changes.Exit(held);
        }
    }

    public async ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        using RangeLock.Holder held = await state.Changes.EnterAsync(
            offset, offset + length, exclusive: true, cancellationToken).ConfigureAwait(false);
        await next.ZeroAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
        bool mayBeHole = (flags & RequestFlags.MayTrim) != 0;
        state.Map.Set(offset, offset + length, mayBeHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Zero);
    }

    public async ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        using RangeLock.Holder held = await state.Changes.EnterAsync(
            offset, offset + length, exclusive: true, cancellationToken).ConfigureAwait(false);
        state.Map.Set(offset, offset + length, ExtentStatus.Hole);
        await next.TrimAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
    }

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        if (extents.MetaContext != ExtentList.BaseAllocation)
        {
            return next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
        }
        state.Map.Query(offset, Math.Min(_size, extents.End), extents);
        return default;
    }

    // What is lent for writing could not be followed.
    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !forWrite && next.TryLend(offset, length, loan, forWrite: false);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);
}
