namespace NbdKit.Server;

/// <summary>Replies in the order of their requests, for a chain whose model is <see cref="ThreadModel.SerializeRetirement"/>.</summary>
internal sealed class ReplyOrder(ReplyWriter replies)
{
    private readonly Lock _lock = new();
    private readonly Queue<PendingRequest> _requests = new();
    private readonly Dictionary<PendingRequest, ReplySegment> _finished = [];

    public void Add(PendingRequest request)
    {
        lock (_lock)
        {
            _requests.Enqueue(request);
        }
    }

    /// <summary>The request has its reply; it and those behind it that wait for it go out.</summary>
    public void Finish(PendingRequest request, ReplySegment reply)
    {
        lock (_lock)
        {
            _finished.Add(request, reply);
            // Queued under the lock, so that two threads that retire requests cannot swap their replies.
            while (_requests.TryPeek(out PendingRequest? next) && _finished.Remove(next, out ReplySegment ready))
            {
                _requests.Dequeue();
                replies.Post(ready);
            }
        }
    }
}
