using System.Runtime.CompilerServices;

namespace NbdKit.Transports;

/// <summary>A thread that runs one connection while it is busy. Work is whatever continues after <see cref="SwitchTo"/>.</summary>
internal sealed class PumpThread
{
    private static readonly TimeSpan RetireAfter = TimeSpan.FromSeconds(10);

    private readonly SemaphoreSlim _signal = new(0);
    private readonly Func<PumpThread, bool> _retire;
    private readonly int _managedThreadId;
    private Action? _work;

    public PumpThread(Func<PumpThread, bool> retire)
    {
        _retire = retire;
        var thread = new Thread(Run) { IsBackground = true, Name = "NBD connection" };
        _managedThreadId = thread.ManagedThreadId;
        thread.UnsafeStart();
    }

    /// <summary>Whether the caller runs on this thread.</summary>
    public bool IsCurrent => Environment.CurrentManagedThreadId == _managedThreadId;

    /// <summary>Awaited, continues on this thread.</summary>
    public Awaiter SwitchTo() => new(this);

    private void Run()
    {
        while (true)
        {
            if (!_signal.Wait(RetireAfter))
            {
                if (_retire(this))
                {
                    return;
                }
                continue;
            }
            Interlocked.Exchange(ref _work, null)?.Invoke();
        }
    }

    private void Post(Action continuation)
    {
        Volatile.Write(ref _work, continuation);
        _signal.Release();
    }

    internal readonly struct Awaiter(PumpThread thread) : ICriticalNotifyCompletion
    {
        public bool IsCompleted => thread.IsCurrent;

        public Awaiter GetAwaiter() => this;

        public void GetResult()
        {
        }

        public void OnCompleted(Action continuation) => thread.Post(continuation);

        public void UnsafeOnCompleted(Action continuation) => thread.Post(continuation);
    }
}
