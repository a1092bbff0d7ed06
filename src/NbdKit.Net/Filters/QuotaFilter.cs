using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Limits how many bytes a client may read and write, then closes its connection. nbdkit has no such filter; bandwidth quotas are on its
/// list of wishes.
/// </summary>
/// <remarks>
/// <para>
/// Each open of an export has quotas of its own. A request that does not fit into what is left of them fails with ESHUTDOWN and has no
/// effect; so does every later one, and after <see cref="CloseAfter"/> the connection is cut. A client that connects again begins
/// anew. Zeroes, trims, prefetches and questions about extents are free.
/// </para>
/// <para>For a context that the host opened itself requests fail, and there is no connection to close.</para>
/// </remarks>
public sealed class QuotaFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "quota",
        "limits how many bytes each client may read and write",
        [
            new NbdParameter("quota-read", "the bytes that a client may read (default: no limit)"),
            new NbdParameter("quota-write", "the bytes that a client may write (default: no limit)"),
            new NbdParameter("quota", "the bytes that a client may read and write together (default: no limit)"),
            new NbdParameter("quota-close-after", "how long a client keeps its connection once a quota is used up (default 1 second)"),
        ],
        parameters => new QuotaFilter
        {
            Read = parameters.Size("quota-read"),
            Write = parameters.Size("quota-write"),
            Total = parameters.Size("quota"),
            CloseAfter = parameters.Delay("quota-close-after") ?? TimeSpan.FromSeconds(1),
        });

    /// <summary>The bytes that a client may read, or null, the default, for any number.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Read { get; init => field = Checked(value); }

    /// <summary>The bytes that a client may write, or null, the default, for any number.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Write { get; init => field = Checked(value); }

    /// <summary>The bytes that a client may read and write together, or null, the default, for any number.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Total { get; init => field = Checked(value); }

    /// <summary>
    /// How long a client keeps its connection once a request did not fit, so that the replies to earlier ones, and the error, can still
    /// reach it: up to 49 days, or zero for not at all. One second by default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan CloseAfter { get; init => field = TimerRange.Checked(value); } = TimeSpan.FromSeconds(1);

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "quota";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this, context.Connection);
    }

    private static long? Checked(long? value)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(value));
        return value;
    }

    private sealed class Handle(QuotaFilter filter, NbdConnection? connection) : RequestHandle, ILendingFilter
    {
        private readonly Lock _lock = new();
        private long _read;
        private long _written;
        private bool _isOver;
        private ITimer? _closing;

        bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        {
            // What does not fit is refused when it comes as a request.
            if (!TryTake(length, forWrite, last: false))
            {
                return false;
            }
            bool lent = next.TryLend(offset, length, loan, forWrite);
            if (!lent)
            {
                GiveBack(length, forWrite);
            }
            return lent;
        }

        void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

        public override ValueTask CloseAsync()
        {
            lock (_lock)
            {
                _isOver = true;
                _closing?.Dispose();
            }
            return default;
        }

        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            bool counts = call.Operation is LayerOperation.Read or LayerOperation.ReadSparse or LayerOperation.Write;
            return !counts || TryTake(call.Length, call.Operation == LayerOperation.Write, last: true)
                ? call.Invoke(next, cancellationToken)
                : ValueTask.FromException(new NbdException(
                    NbdError.Shutdown, $"the quota of this client has no room for {call.Length} bytes more"));
        }

        private bool TryTake(long length, bool isWrite, bool last)
        {
            lock (_lock)
            {
                long left = Math.Min(
                    (isWrite ? filter.Write - _written : filter.Read - _read) ?? long.MaxValue,
                    filter.Total - _read - _written ?? long.MaxValue);
                if (!_isOver && length <= left)
                {
                    (isWrite ? ref _written : ref _read) += length;
                    return true;
                }
                if (last && !_isOver && connection is not null)
                {
                    _isOver = true;
                    connection.Disconnect(force: filter.CloseAfter == TimeSpan.Zero);
                    _closing = filter.TimeProvider.CreateTimer(
                        state => ((NbdConnection)state!).Disconnect(force: true), connection, filter.CloseAfter, Timeout.InfiniteTimeSpan);
                }
                return false;
            }
        }

        private void GiveBack(long length, bool isWrite)
        {
            lock (_lock)
            {
                (isWrite ? ref _written : ref _read) -= length;
            }
        }
    }
}
