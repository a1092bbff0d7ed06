using System.Collections.Concurrent;

namespace NbdKit.Server;

/// <summary>The payload bytes that all connections of a server hold together.</summary>
internal sealed class ServerBudget(long limit)
{
    private readonly ConcurrentQueue<FlowBudget> _waiting = new();
    private long _bytes;

    /// <summary>
    /// Whether a connection that holds so much may take more: up to as much as is left for all others. So those that hold on to
    /// what they have never take everything, however many they are, and one that holds nothing finds room.
    /// </summary>
    public bool HasRoom(long held, long bytes)
    {
        long total = Volatile.Read(ref _bytes);
        return total == 0 || held + bytes <= limit - total;
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
