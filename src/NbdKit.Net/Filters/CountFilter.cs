using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Counts the bytes that are read, written, zeroed and trimmed, over all clients, and logs them when the chain ends
/// (nbdkit-count-filter(1)). <see cref="StatsFilter"/> tells more.
/// </summary>
/// <remarks>
/// Only requests that succeeded count. A zero counts as one even if the layers below write it. A request costs no allocation.
/// </remarks>
public sealed partial class CountFilter : INbdFilter
{
    private long _read;
    private long _written;
    private long _zeroed;
    private long _trimmed;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "count", "counts the bytes that are read, written, zeroed and trimmed, and logs them at the end", [], _ => new CountFilter());

    /// <summary>The bytes read so far.</summary>
    public long BytesRead => Interlocked.Read(ref _read);

    /// <summary>The bytes written so far.</summary>
    public long BytesWritten => Interlocked.Read(ref _written);

    /// <summary>The bytes zeroed so far.</summary>
    public long BytesZeroed => Interlocked.Read(ref _zeroed);

    /// <summary>The bytes trimmed so far.</summary>
    public long BytesTrimmed => Interlocked.Read(ref _trimmed);

    /// <inheritdoc/>
    public string Name => "count";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this);
    }

    /// <inheritdoc/>
    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(backend);
        LogCounts(backend.Logger, BytesRead, BytesWritten, BytesZeroed, BytesTrimmed);
        return default;
    }

    [LoggerMessage(61, LogLevel.Information, "Bytes: read {Read}, written {Written}, zeroed {Zeroed}, trimmed {Trimmed}")]
    private static partial void LogCounts(ILogger logger, long read, long written, long zeroed, long trimmed);

    private void Add(LayerOperation operation, long length)
    {
        switch (operation)
        {
            case LayerOperation.Read or LayerOperation.ReadSparse:
                Interlocked.Add(ref _read, length);
                break;
            case LayerOperation.Write:
                Interlocked.Add(ref _written, length);
                break;
            case LayerOperation.Zero:
                Interlocked.Add(ref _zeroed, length);
                break;
            case LayerOperation.Trim:
                Interlocked.Add(ref _trimmed, length);
                break;
        }
    }

    private sealed class Handle(CountFilter filter) : RequestHandle, ILendingFilter
    {
        bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        {
            bool lent = next.TryLend(offset, length, loan, forWrite);
            if (lent)
            {
                filter.Add(forWrite ? LayerOperation.Write : LayerOperation.Read, length);
            }
            return lent;
        }

        void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            ValueTask pending = call.Invoke(next, cancellationToken);
            if (!pending.IsCompletedSuccessfully)
            {
                return FinishAsync(pending, call.Operation, call.Length);
            }
            pending.GetAwaiter().GetResult();
            filter.Add(call.Operation, call.Length);
            return default;
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        private async ValueTask FinishAsync(ValueTask pending, LayerOperation operation, long length)
        {
            await pending.ConfigureAwait(false);
            filter.Add(operation, length);
        }
    }
}
