using NbdKit.Filters.Ahead;

namespace NbdKit.Filters;

// One context: tells the scan of its export that a client is there, and what it reads.
public sealed partial class ScanFilter
{
    private sealed class ScanHandle(ScanFilter filter, NbdContext context) : INbdFilterHandle
    {
        private Scanner? _scanner;

        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            _scanner = filter.Join(context);
            return default;
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            if (filter.Ahead)
            {
                _scanner?.NoteRead(offset + buffer.Length);
            }
            return next.ReadAsync(buffer, offset, cancellationToken);
        }

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => _scanner?.LeaveAsync() ?? default;
    }
}
