using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Clients;

/// <summary>Passes everything on, and cuts a client that has made no request for a time.</summary>
internal sealed class IdleHandle : RequestHandle, ILendingFilter
{
    private readonly TimeSpan _limit;
    private readonly TimeProvider _timeProvider;
    private readonly NbdConnection _client;
    private readonly ITimer _timer;
    private long _since;
    private int _running;

    public IdleHandle(NbdConnection client, TimeSpan limit, TimeProvider timeProvider)
    {
        _client = client;
        _limit = limit;
        _timeProvider = timeProvider;
        _since = timeProvider.GetTimestamp();
        _timer = timeProvider.CreateTimer(
            static state => ((IdleHandle)state!).Look(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _timer.Change(limit, Timeout.InfiniteTimeSpan);
    }

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
    {
        Touch();
        return next.TryLend(offset, length, loan, forWrite);
    }

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    public override ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken) => new(next.Info);

    public override async ValueTask CloseAsync() => await _timer.DisposeAsync().ConfigureAwait(false);

    protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref _running);
        ValueTask pending;
        try
        {
            pending = call.Invoke(next, cancellationToken);
        }
        catch
        {
            End();
            throw;
        }
        if (!pending.IsCompletedSuccessfully)
        {
            return EndWhenDoneAsync(pending);
        }
        pending.GetAwaiter().GetResult();
        End();
        return default;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask EndWhenDoneAsync(ValueTask pending)
    {
        try
        {
            await pending.ConfigureAwait(false);
        }
        finally
        {
            End();
        }
    }

    private void End()
    {
        // In this order: who sees that nothing runs also sees since when.
        Touch();
        Interlocked.Decrement(ref _running);
    }

    private void Touch() => Volatile.Write(ref _since, _timeProvider.GetTimestamp());

    private void Look()
    {
        bool isBusy = Volatile.Read(ref _running) > 0;
        TimeSpan left = isBusy ? _limit : _limit - _timeProvider.GetElapsedTime(Volatile.Read(ref _since));
        if (left <= TimeSpan.Zero)
        {
            _client.Disconnect(force: true);
            return;
        }
        // A timer of less than a millisecond would be one of none.
        _timer.Change(left < TimeSpan.FromMilliseconds(1) ? TimeSpan.FromMilliseconds(1) : left, Timeout.InfiniteTimeSpan);
    }
}
