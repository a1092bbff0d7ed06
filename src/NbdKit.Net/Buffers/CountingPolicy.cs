using Microsoft.Extensions.ObjectPool;

namespace NbdKit.Buffers;

/// <summary>Counts what is made for a pool: what was made and does not lie in the pool is in use, or lost.</summary>
internal sealed class CountingPolicy<T> : DefaultPooledObjectPolicy<T>
    where T : class, new()
{
    private int _made;

    /// <summary>How many objects were ever made.</summary>
    public int Made => Volatile.Read(ref _made);

    public override T Create()
    {
        Interlocked.Increment(ref _made);
        return base.Create();
    }
}
