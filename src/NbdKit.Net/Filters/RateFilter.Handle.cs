using NbdKit.Layers;

namespace NbdKit.Filters;

// One connection: what it reads and writes goes through its two lanes.
public sealed partial class RateFilter
{
    private sealed class Handle(RateFilter filter, RateClient client, RateLane reads, RateLane writes) : INbdFilterHandle
    {
        public bool KeepsNext => true;

        public void Change(long rate, TimeSpan burst)
        {
            reads.Own.Change(rate, burst);
            writes.Own.Change(rate, burst);
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            // What would be emulated above this layer would be counted as the reads and writes that it is made of.
            NbdExportInfo info = next.Info;
            return new(info with
            {
                CanZero = info.CanZero.ComesThrough(),
                CanCache = info.CanCache.ComesThrough(),
            });
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => filter.IsUpToDate && reads.TryTake(buffer.Length)
                ? next.ReadAsync(buffer, offset, cancellationToken)
                : ReadSlowlyAsync(next, buffer, offset, cancellationToken);

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => filter.IsUpToDate && writes.TryTake(data.Length)
                ? next.WriteAsync(data, offset, flags, cancellationToken)
                : WriteSlowlyAsync(next, data, offset, flags, cancellationToken);

        public ValueTask CloseAsync()
        {
            filter.Forget(this, client);
            return default;
        }

        private async ValueTask ReadSlowlyAsync(
            NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            await filter.UpdateAsync(cancellationToken).ConfigureAwait(false);
            while (!buffer.IsEmpty)
            {
                int piece = await TakeAsync(reads, next, offset, buffer.Length, cancellationToken).ConfigureAwait(false);
                await next.ReadAsync(buffer[..piece], offset, cancellationToken).ConfigureAwait(false);
                buffer = buffer[piece..];
                offset += piece;
            }
        }

        private async ValueTask WriteSlowlyAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            await filter.UpdateAsync(cancellationToken).ConfigureAwait(false);
            while (!data.IsEmpty)
            {
                int piece = await TakeAsync(writes, next, offset, data.Length, cancellationToken).ConfigureAwait(false);
                await next.WriteAsync(data[..piece], offset, flags, cancellationToken).ConfigureAwait(false);
                data = data[piece..];
                offset += piece;
            }
        }

        private async ValueTask<int> TakeAsync(
            RateLane lane, NextContext next, long offset, int left, CancellationToken cancellationToken)
        {
            if (lane.TryTake(left))
            {
                return left;
            }
            int piece = filter.NextPiece(next.Info.BlockSize, offset, left);
            await lane.TakeAsync(piece, cancellationToken).ConfigureAwait(false);
            return piece;
        }
    }
}
