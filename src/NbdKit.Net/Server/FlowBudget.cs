using System.Threading.Tasks.Sources;

namespace NbdKit.Server;

/// <summary>
/// What one connection may have in flight: requests that run, and bytes that they hold or that wait to be sent. The receiving
/// loop, and only it, waits here when there is no room.
/// </summary>
internal sealed class FlowBudget(int maxRequests, long maxBytes, ServerBudget server) : IValueTaskSource
{
    private readonly Lock _lock = new();
    private ManualResetValueTaskSourceCore<bool> _room = new() { RunContinuationsAsynchronously = true };
    private bool _waiting;
    private bool _enlisted;
    private int _requests;
    private long _bytes;

    // Only the receiving loop touches it.
    private long _admitted;

    /// <summary>The requests that run now.</summary>
    public int Requests => Volatile.Read(ref _requests);

    /// <summary>Whether a request that will hold so many bytes may begin. One is always let through.</summary>
    public bool HasRoom(long bytes) => Obstacle(bytes) == ReachedLimits.None;

    /// <summary>What stands in the way of a request that will hold so many bytes.</summary>
    public ReachedLimits Obstacle(long bytes)
    {
        ReachedLimits own = OwnObstacle(bytes);
        return own != ReachedLimits.None || server.HasRoom(Volatile.Read(ref _bytes), bytes) ? own : ReachedLimits.ServerBytesInFlight;
    }

    private ReachedLimits OwnObstacle(long bytes)
    {
        if (Volatile.Read(ref _requests) >= maxRequests)
        {
            return ReachedLimits.RequestsInFlight;
        }
        long held = Volatile.Read(ref _bytes);
        return held != 0 && bytes > maxBytes - held ? ReachedLimits.BytesInFlight : ReachedLimits.None;
    }

    /// <summary>
    /// Lets a request begin that will hold so many bytes, if there is room. Many small ones that begin in the same moment do not matter;
    /// for a larger one the bytes are taken here and now, until <see cref="Settle"/>.
    /// </summary>
    public bool TryAdmit(long bytes)
    {
        if (bytes < ServerBudget.SmallBytes)
        {
            return HasRoom(bytes);
        }
        if (OwnObstacle(bytes) != ReachedLimits.None || !server.TryTake(Volatile.Read(ref _bytes), bytes))
        {
            return false;
        }
        Interlocked.Add(ref _bytes, bytes);
        _admitted = bytes;
        return true;
    }

    /// <summary>The request that was admitted last has begun, and what it holds is counted by itself; or it never will.</summary>
    public void Settle()
    {
        if (_admitted > 0)
        {
            long bytes = _admitted;
            _admitted = 0;
            Give(bytes);
        }
    }

    public void BeginRequest() => Interlocked.Increment(ref _requests);

    public void EndRequest()
    {
        Interlocked.Decrement(ref _requests);
        Wake();
    }

    public void Take(long bytes)
    {
        Interlocked.Add(ref _bytes, bytes);
        server.Take(bytes);
    }

    public void Give(long bytes)
    {
        Interlocked.Add(ref _bytes, -bytes);
        server.Give(bytes);
        Wake();
    }

    /// <summary>It is off the server's list of those who wait, and asks again if it waits.</summary>
    public void Delist()
    {
        // Before it is looked whether it waits: else it could wait by now, and have found itself on the list.
        Interlocked.Exchange(ref _enlisted, false);
        Wake();
    }

    /// <summary>Whether it must be put on that list now.</summary>
    public bool TryEnlist() => !Interlocked.Exchange(ref _enlisted, true);

    /// <summary>Completes when something changed; the caller asks again whether there is room.</summary>
    public ValueTask WaitAsync(long bytes)
    {
        lock (_lock)
        {
            _room.Reset();
            _waiting = true;
        }
        // What it holds itself wakes it when it is given back.
        ReachedLimits obstacle = Obstacle(bytes);
        if (obstacle == ReachedLimits.ServerBytesInFlight)
        {
            server.Enlist(this, Volatile.Read(ref _bytes), bytes);
        }
        // What changed before the wait began must not be missed; and who saw room is on no list, if there is none any more.
        if (obstacle == ReachedLimits.None || HasRoom(bytes))
        {
            Wake();
        }
        return new ValueTask(this, _room.Version);
    }

    /// <summary>Completes when no request runs any more.</summary>
    public async ValueTask WaitForRequestsAsync()
    {
        while (Requests > 0)
        {
            ValueTask change;
            lock (_lock)
            {
                _room.Reset();
                _waiting = true;
                change = new ValueTask(this, _room.Version);
            }
            if (Requests == 0)
            {
                Wake();
            }
            await change.ConfigureAwait(false);
        }
    }

    public void Wake()
    {
        if (!Volatile.Read(ref _waiting))
        {
            return;
        }
        lock (_lock)
        {
            if (!_waiting)
            {
                return;
            }
            _waiting = false;
        }
        _room.SetResult(true);
    }

    void IValueTaskSource.GetResult(short token) => _room.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _room.GetStatus(token);

    void IValueTaskSource.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        => _room.OnCompleted(continuation, state, token, flags);
}
