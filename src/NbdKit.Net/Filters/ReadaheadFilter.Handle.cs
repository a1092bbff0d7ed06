using System.Runtime.CompilerServices;
using NbdKit.Filters.Ahead;

namespace NbdKit.Filters;

// One context: its stream, and the writes that the streams of the export have to know of.
public sealed partial class ReadaheadFilter
{
    private sealed class ReadaheadHandle(ReadaheadFilter filter, NbdContext context) : INbdFilterHandle
    {
        private ReadaheadGroup? _group;
        private ReadaheadStream? _stream;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            ThreadModel model = next.Backend.ThreadModel;
            bool isSafe = !next.Info.CanWrite || next.Info.CanMultiConn;
            _group = filter.Join(context.ExportName);
            _stream = model switch
            {
                >= ThreadModel.SerializeRetirement => new ReadaheadStream(_group, next, null, filter.MaxWindow),
                ThreadModel.SerializeRequests when isSafe => new ReadaheadStream(_group, next, OpenAsync, filter.MaxWindow),
                _ => null,
            };
            return default;
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => _stream?.ReadAsync(buffer, offset, cancellationToken) ?? next.ReadAsync(buffer, offset, cancellationToken);

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        public async ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            _group!.BeginWrite(offset, data.Length);
            try
            {
                await next.WriteAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _group.EndWrite();
            }
        }

        public async ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            _group!.BeginWrite(offset, length);
            try
            {
                await next.TrimAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _group.EndWrite();
            }
        }

        public async ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            _group!.BeginWrite(offset, length);
            try
            {
                await next.ZeroAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _group.EndWrite();
            }
        }

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => _stream?.StopAsync() ?? default;

        public ValueTask CloseAsync()
        {
            if (Interlocked.Exchange(ref _group, null) is { } group)
            {
                filter.Leave(context.ExportName, group);
            }
            return default;
        }

        private async ValueTask<NextContext> OpenAsync(CancellationToken cancellationToken)
        {
            NextContext own = await context.Backend
                .OpenNextAsync(readOnly: true, context.ExportName, context, cancellationToken).ConfigureAwait(false);
            try
            {
                await own.PrepareAsync(cancellationToken).ConfigureAwait(false);
                return own;
            }
            catch
            {
                await own.CloseAsync().ConfigureAwait(false);
                throw;
            }
        }
    }
}
