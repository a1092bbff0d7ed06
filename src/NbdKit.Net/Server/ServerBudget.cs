using System.Collections.Concurrent;

namespace NbdKit.Server;

/// <summary>The payload bytes that all connections of a server hold together.</summary>
internal sealed class ServerBudget(long limit)
{
    // What a connection that holds nothing may take of the part that is kept for such.
    private const int SmallBytes = 64 << 10;

    // What is plenty for any number of clients.
    private const long MostByDefault = 512 << 20;

    private readonly long _forSmall = limit / 16;
    private readonly ConcurrentQueue<FlowBudget> _waiting = new();
    private long _bytes;

    /// <summary>The limit for a process that may use so much memory, or whose memory is not known (0).</summary>
    public static long DefaultLimit(long availableBytes)
        => availableBytes > 0 ? Math.Clamp(availableBytes / 2, 1, MostByDefault) : MostByDefault;

    /// <summary>
    /// Whether a connection that holds so much may take more: up to as much as is left for all others, of which a part is kept for
    /// small requests of connections that hold nothing. Many that hold on to what they have could take everything else between
    /// them, and the others would wait for as long as those stall.
    /// </summary>
    public bool HasRoom(long held, long bytes)
    {
        long total = Volatile.Read(ref _bytes);
        long left = limit - total;
        return total == 0 || held + bytes <= (held == 0 && bytes <= SmallBytes ? left : left - _forSmall);
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
