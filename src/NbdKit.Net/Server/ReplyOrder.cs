namespace NbdKit.Server;

/// <summary>
/// Lets requests retire in the order in which they came, for a chain whose model is <see cref="ThreadModel.SerializeRetirement"/>.
/// A request that has finished and waits for its turn is still in flight.
/// </summary>
internal sealed class ReplyOrder(Action<PendingRequest, ReplySegment> retire)
{
    private readonly Lock _lock = new();
    private readonly Queue<PendingRequest> _requests = new();
    private readonly Dictionary<PendingRequest, ReplySegment> _finished = [];
    private bool _retiring;

    public void Add(PendingRequest request)
    {
        lock (_lock)
        {
            _requests.Enqueue(request);
        }
    }

    /// <summary>The request has its reply; it and those behind it that wait for it retire.</summary>
    public void Finish(PendingRequest request, ReplySegment reply)
    {
        lock (_lock)
        {
            _finished.Add(request, reply);
            if (_retiring)
            {
                return;
            }
            _retiring = true;
        }
        // One thread at a time and outside the lock: retiring may send, and nobody else has to wait for that.
        while (TryTakeNext(out PendingRequest? next, out ReplySegment ready))
        {
            retire(next, ready);
        }
    }

    private bool TryTakeNext([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out PendingRequest? next, out ReplySegment ready)
    {
        lock (_lock)
        {
            ready = default;
            if (_requests.TryPeek(out next) && _finished.Remove(next, out ready))
            {
                _requests.Dequeue();
                return true;
            }
            _retiring = false;
            return false;
        }
    }
}
