using System.Diagnostics.CodeAnalysis;

namespace NbdKit.Transports;

/// <summary>
/// The threads that a server lends to busy connections. Waiting for the next request in a system call costs half of what it
/// costs through the runtime's event loop and a pool thread; an idle connection has no thread, and above the limit busy ones
/// do without as well.
/// </summary>
internal sealed class PumpThreads(int limit)
{
    private readonly Lock _lock = new();
    private readonly Stack<PumpThread> _free = new();
    private int _count;
    private volatile int _lent;

    /// <summary>How many threads serve a connection now.</summary>
    public int Lent => _lent;

    public bool TryRent([NotNullWhen(true)] out PumpThread? thread)
    {
        lock (_lock)
        {
            if (_free.TryPop(out thread))
            {
                _lent++;
                return true;
            }
            if (_count >= limit)
            {
                return false;
            }
            _count++;
            _lent++;
        }
        thread = new PumpThread(Retire);
        return true;
    }

    public void Return(PumpThread thread)
    {
        lock (_lock)
        {
            _free.Push(thread);
            _lent--;
        }
    }

    /// <summary>An idle thread wants to end; false if it was lent in the same moment.</summary>
    private bool Retire(PumpThread thread)
    {
        lock (_lock)
        {
            if (!_free.Contains(thread))
            {
                return false;
            }
            PumpThread[] others = [.. _free.Where(t => t != thread).Reverse()];
            _free.Clear();
            foreach (PumpThread other in others)
            {
                _free.Push(other);
            }
            _count--;
            return true;
        }
    }
}
