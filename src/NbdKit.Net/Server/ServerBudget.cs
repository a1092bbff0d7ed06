using System.Collections.Concurrent;

namespace NbdKit.Server;

/// <summary>The payload bytes that all connections of a server hold together.</summary>
internal sealed class ServerBudget(long limit)
{
    /// <summary>What a connection that holds nothing may take of the part that is kept for such.</summary>
    public const int SmallBytes = 64 << 10;

    // What is plenty for any number of clients.
    private const long MostByDefault = 512 << 20;

    private const long NobodyWaits = -1;

    private readonly long _forSmall = limit / 16;
    private readonly ConcurrentQueue<FlowBudget> _waiting = new();
    private long _bytes;

    // With no more than this somebody who waits may go on.
    private long _wakeAt = NobodyWaits;

    /// <summary>What they hold now.</summary>
    public long Held => Volatile.Read(ref _bytes);

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
        return total == 0 || total <= MostTotal(held, bytes);
    }

    /// <summary>Takes more for a connection that holds so much, if there is room: of two who see the same room, one gets it.</summary>
    public bool TryTake(long held, long bytes)
    {
        long most = MostTotal(held, bytes);
        for (long seen = Volatile.Read(ref _bytes); seen == 0 || seen <= most;)
        {
            long now = Interlocked.CompareExchange(ref _bytes, seen + bytes, seen);
            if (now == seen)
            {
                return true;
            }
            seen = now;
        }
        return false;
    }

    public void Take(long bytes) => Interlocked.Add(ref _bytes, bytes);

    public void Give(long bytes)
    {
        // Most of what is given back makes room for nobody, and to wake all who wait for it would cost those who are served.
        if (Interlocked.Add(ref _bytes, -bytes) > Volatile.Read(ref _wakeAt))
        {
            return;
        }
        Interlocked.Exchange(ref _wakeAt, NobodyWaits);
        while (_waiting.TryDequeue(out FlowBudget? budget))
        {
            budget.Delist();
        }
    }

    /// <summary>
    /// A connection that holds so much is woken once there may be room for so much more. It asks again after this call, so that
    /// what was given back meanwhile is not missed.
    /// </summary>
    public void Enlist(FlowBudget budget, long held, long bytes)
    {
        if (budget.TryEnlist())
        {
            _waiting.Enqueue(budget);
        }
        // Only when it is in the queue: whoever takes this back empties the queue after that.
        long wakeAt = Math.Max(0, MostTotal(held, bytes));
        for (long seen = Volatile.Read(ref _wakeAt); seen < wakeAt;)
        {
            long now = Interlocked.CompareExchange(ref _wakeAt, wakeAt, seen);
            if (now == seen)
            {
                break;
            }
            seen = now;
        }
        Interlocked.MemoryBarrier();
    }

    // The most that all may hold when a connection takes so much more.
    private long MostTotal(long held, long bytes)
        => limit - (held == 0 && bytes <= SmallBytes ? 0 : _forSmall) - held - bytes;
}
