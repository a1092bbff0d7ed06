namespace NbdKit.Filters;

// One context of this filter. Nothing is ever attached to it: an attached context is held by every request that began on it
// until that request ends, retries and delays included, and so could not be closed before the next one is opened.
public sealed partial class RetryFilter
{
    private sealed partial class RetryHandle : INbdFilterHandle
    {
        private readonly RetryFilter _filter;
        private readonly NbdContext _context;
        private readonly NbdExportInfo _info;

        public RetryHandle(RetryFilter filter, NbdContext context, NextContext first)
        {
            _filter = filter;
            _context = context;
            _info = first.Info;
            _current = new Generation(first);
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(_info);

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => Run(
                new RetryRequest(RetryOperation.Read) { Buffer = buffer, Offset = offset, Length = buffer.Length },
                cancellationToken);

        public ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            => Run(
                new RetryRequest(RetryOperation.Write) { Data = data, Offset = offset, Length = data.Length, Flags = flags },
                cancellationToken);

        public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
            => Run(new RetryRequest(RetryOperation.Flush), cancellationToken);

        public ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Run(
                new RetryRequest(RetryOperation.Trim) { Offset = offset, Length = length, Flags = flags }, cancellationToken);

        public ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
            => Run(
                new RetryRequest(RetryOperation.Zero) { Offset = offset, Length = length, Flags = flags }, cancellationToken);

        public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
            => Run(new RetryRequest(RetryOperation.Cache) { Offset = offset, Length = length }, cancellationToken);

        public ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
            => Run(
                new RetryRequest(RetryOperation.Extents)
                {
                    Offset = offset,
                    Length = length,
                    Flags = flags,
                    Extents = extents,
                },
                cancellationToken);

        public async ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
        {
            await StopReopeningAsync(cancellationToken).ConfigureAwait(false);
            await _current.FinalizeAsync(cancellationToken).ConfigureAwait(false);
        }

        public async ValueTask CloseAsync()
        {
            await StopReopeningAsync(CancellationToken.None).ConfigureAwait(false);
            await _current.CloseAsync().ConfigureAwait(false);
            _closing.Dispose();
        }
    }
}
