using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Filters.Statistics;
using NbdKit.Layers;

namespace NbdKit.Filters;

// Every request: measured from when it comes to when it has ended.
public sealed partial class StatsFilter
{
    private sealed class Handle(StatsFilter filter) : RequestHandle, ILendingFilter
    {
        bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        {
            long began = filter.TimeProvider.GetTimestamp();
            bool lent = next.TryLend(offset, length, loan, forWrite);
            if (lent)
            {
                // That is all that the layers have to do with it.
                Count(forWrite ? LayerOperation.Write : LayerOperation.Read).Add(offset, length, Ticks(began));
            }
            return lent;
        }

        void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            OperationCounts counts = Count(call.Operation);
            long began = filter.TimeProvider.GetTimestamp();
            ValueTask pending;
            try
            {
                pending = call.Invoke(next, cancellationToken);
            }
            catch
            {
                counts.Fail();
                throw;
            }
            if (!pending.IsCompletedSuccessfully)
            {
                return FinishAsync(pending, counts, call.Offset, call.Length, began);
            }
            pending.GetAwaiter().GetResult();
            counts.Add(call.Offset, call.Length, Ticks(began));
            return default;
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        private async ValueTask FinishAsync(ValueTask pending, OperationCounts counts, long offset, long length, long began)
        {
            try
            {
                await pending.ConfigureAwait(false);
            }
            catch
            {
                counts.Fail();
                throw;
            }
            counts.Add(offset, length, Ticks(began));
        }

        private OperationCounts Count(LayerOperation operation) => filter._counts[(int)operation.ForClients()];

        private long Ticks(long began) => filter.TimeProvider.GetElapsedTime(began).Ticks;
    }
}
