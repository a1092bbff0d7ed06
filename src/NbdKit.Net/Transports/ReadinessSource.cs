using System.Threading.Tasks.Sources;

namespace NbdKit.Transports;

/// <summary>A wait that is used again and again by one waiter.</summary>
internal sealed class ReadinessSource : IValueTaskSource
{
    // Not on the poller's thread: what continues may take its time.
    private ManualResetValueTaskSourceCore<bool> _core = new() { RunContinuationsAsynchronously = true };
    private int _waiting;

    public bool IsWaiting => Volatile.Read(ref _waiting) != 0;

    public ValueTask Begin()
    {
        _core.Reset();
        Volatile.Write(ref _waiting, 1);
        return new ValueTask(this, _core.Version);
    }

    public void Complete()
    {
        if (Interlocked.Exchange(ref _waiting, 0) != 0)
        {
            _core.SetResult(true);
        }
    }

    void IValueTaskSource.GetResult(short token) => _core.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        => _core.OnCompleted(continuation, state, token, flags);
}
