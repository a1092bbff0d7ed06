namespace NbdKit.Client;

/// <summary>
/// Completed requests on their way to the threads that run what continues after them: the thread pool's.
/// </summary>
/// <remarks>
/// The receiving loop must not run the caller's code, which may block, even until another reply of the same connection comes.
/// A pool thread for each reply would cost more than the reply. So the replies of a receive are handed over together, and one
/// thread runs what continues after all of them, one after the other; before it begins with the first it sees that another
/// thread will look after the rest, in case that the caller's code blocks.
/// </remarks>
internal sealed class CompletionQueue(ClientTransmission transmission) : IThreadPoolWorkItem
{
    private readonly Lock _lock = new();
    private PendingCommand? _first;
    private PendingCommand? _last;
    private int _scheduled;

    /// <summary>Adds a request whose outcome is decided; it is told with the next <see cref="Schedule"/>.</summary>
    public void Add(PendingCommand command)
    {
        lock (_lock)
        {
            command.Next = null;
            if (_last is null)
            {
                _first = command;
            }
            else
            {
                _last.Next = command;
            }
            _last = command;
        }
    }

    /// <summary>Sees that a thread looks after what is here and after what is to be sent.</summary>
    public void Schedule()
    {
        if (Interlocked.Exchange(ref _scheduled, 1) == 0)
        {
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
    }

    /// <summary>As <see cref="Schedule"/>, if there is anything.</summary>
    public void ScheduleIfAny()
    {
        if (Volatile.Read(ref _first) is not null)
        {
            Schedule();
        }
    }

    void IThreadPoolWorkItem.Execute()
    {
        Interlocked.Exchange(ref _scheduled, 0);
        transmission.Send();
        if (!TryTake(out PendingCommand? command))
        {
            return;
        }
        ScheduleIfAny();
        transmission.HoldSends();
        do
        {
            command!.Complete();
        }
        while (TryTake(out command));
        transmission.ReleaseSends();
    }

    private bool TryTake(out PendingCommand? command)
    {
        lock (_lock)
        {
            command = _first;
            if (command is null)
            {
                return false;
            }
            _first = command.Next;
            if (_first is null)
            {
                _last = null;
            }
            command.Next = null;
            return true;
        }
    }
}
