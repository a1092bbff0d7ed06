using NbdKit.Buffers;

namespace NbdKit.Filters;

// One context: the export's overlay over the context below.
public sealed partial class CowFilter
{
    private sealed class CowHandle(CowFilter filter, NbdContext context) : INbdFilterHandle, ILendingFilter
    {
        private CowOverlay? _overlay;

        private CowOverlay Overlay => _overlay!;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            _overlay = filter.Acquire(context, next.Info);
            return default;
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
            => new(next.Info with
            {
                BlockSize = next.Info.BlockSize.PreferringAtLeast(Overlay.BlockSize),
                CanWrite = true,
                CanFlush = true,
                CanTrim = true,
                CanZero = Support.Native,
                CanFastZero = true,
                CanFua = Support.Native,
                CanCache = filter.OnCache || next.Info.CanCache != Support.None ? Support.Native : Support.None,
                CanMultiConn = true,
                CanExtents = true,
                // What the overlay means in any other context is not known here.
                MetaContexts = [ExtentList.BaseAllocation, ExtentList.AllocationDepth],
            });

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => Overlay.ReadAsync(next, buffer, offset, filter.CopiesOnRead, cancellationToken);

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => Overlay.WriteAsync(next, data, offset, cancellationToken);

        public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken) => default;

        public ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Overlay.ZeroAsync(next, offset, length, RequestFlags.MayTrim, cancellationToken);

        public ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Overlay.ZeroAsync(next, offset, length, flags, cancellationToken);

        public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
            => Overlay.CacheAsync(next, offset, length, filter.OnCache, cancellationToken);

        public ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
            => Overlay.ExtentsAsync(next, offset, length, flags, extents, cancellationToken);

        // What was never changed is lent by the layer below, which this filter never writes to.
        bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
            => !forWrite && !filter.CopiesOnRead && Overlay.IsBelow(offset, length) && next.TryLend(offset, length, loan, forWrite: false);

        void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

        public ValueTask CloseAsync()
        {
            if (Interlocked.Exchange(ref _overlay, null) is { } overlay)
            {
                filter.Release(context, overlay);
            }
            return default;
        }
    }
}
