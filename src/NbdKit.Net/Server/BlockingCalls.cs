namespace NbdKit.Server;

/// <summary>
/// The threads of a server for calls of layers that block. On the pool they would take its threads, of which there are as many as
/// processors: nothing else of the host, and no other server in it, would run before they come back.
/// </summary>
/// <remarks>
/// As many as there are processors run at once, since most that say that they block rather compute. What has waited for some time
/// gets a thread in addition, up to a limit. A thread that has had nothing to do for a while ends.
/// </remarks>
internal sealed class BlockingCalls(int maxThreads)
{
    private static readonly TimeSpan RetireAfter = TimeSpan.FromSeconds(10);

    // How long a call waits for those that run before it gets a thread in addition.
    private const int WaitMilliseconds = 10;

    private readonly object _lock = new();
    private readonly Queue<(IThreadPoolWorkItem Call, long Since)> _queue = new();
    private readonly int _processors = Math.Min(Environment.ProcessorCount, maxThreads);
    private int _threads;
    private int _running;
    private int _idle;

    /// <summary>Runs a call soon, on a thread that may block.</summary>
    public void Queue(IThreadPoolWorkItem call)
    {
        lock (_lock)
        {
            _queue.Enqueue((call, Environment.TickCount64));
            if (_idle > 0)
            {
                // If enough run already, it sees to it that the call does not wait for too long.
                Monitor.Pulse(_lock);
            }
            else
            {
                AddThread();
            }
        }
    }

    private void AddThread()
    {
        if (_threads < maxThreads)
        {
            _threads++;
            new Thread(Run) { IsBackground = true, Name = "NBD blocking" }.UnsafeStart();
        }
    }

    private void Run()
    {
        while (TryTake(out IThreadPoolWorkItem? call))
        {
            call.Execute();
            lock (_lock)
            {
                _running--;
            }
        }
    }

    /// <summary>Waits for the next call; false if the thread has to end.</summary>
    private bool TryTake([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out IThreadPoolWorkItem? call)
    {
        lock (_lock)
        {
            while (true)
            {
                int wait = (int)RetireAfter.TotalMilliseconds;
                if (_queue.TryPeek(out (IThreadPoolWorkItem Call, long Since) first))
                {
                    wait = (int)(first.Since + WaitMilliseconds - Environment.TickCount64);
                    if (_running < _processors || wait <= 0)
                    {
                        break;
                    }
                }
                _idle++;
                bool woken = Monitor.Wait(_lock, wait);
                _idle--;
                if (!woken && _queue.Count == 0)
                {
                    _threads--;
                    call = null;
                    return false;
                }
            }
            call = _queue.Dequeue().Call;
            _running++;
            if (_queue.Count > 0 && _idle == 0)
            {
                // Somebody has to look after those that wait.
                AddThread();
            }
            return true;
        }
    }
}
