using System.Collections.Concurrent;

namespace NbdKit.Server;

/// <summary>The payload bytes that all connections of a server hold together.</summary>
internal sealed class ServerBudget(long limit)
{
    private readonly ConcurrentQueue<FlowBudget> _waiting = new();
    private long _bytes;

    public bool HasRoom(long bytes)
    {
        long held = Volatile.Read(ref _bytes);
        return held == 0 || bytes <= limit - held;
    }

    public void Take(long bytes) => Interlocked.Add(ref _bytes, bytes);

    public void Give(long bytes)
    {
        Interlocked.Add(ref _bytes, -bytes);
        while (_waiting.TryDequeue(out FlowBudget? budget))
        {
            budget.Wake();
        }
    }

    public void Enlist(FlowBudget budget) => _waiting.Enqueue(budget);
}
