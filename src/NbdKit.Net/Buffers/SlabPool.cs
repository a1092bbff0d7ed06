using Microsoft.Extensions.ObjectPool;

namespace NbdKit.Buffers;

/// <summary>The slabs of one server. What is rented has one user: whoever rented it.</summary>
internal class SlabPool : IPooledObjectPolicy<Slab>
{
    // What idle connections gave back and busy ones will want again; more is left to the garbage collector.
    public const int Retained = 64;

    private readonly ObjectPool<Slab> _pool;
    private int _inUse;
    private int _made;

    public SlabPool() => _pool = new DefaultObjectPool<Slab>(this, Retained);

    /// <summary>How many were ever made.</summary>
    public int Made => Volatile.Read(ref _made);

    /// <summary>How many are rented now.</summary>
    public int InUse => Volatile.Read(ref _inUse);

    /// <summary>Whether so many are rented that whoever only waits with one had better give it back.</summary>
    public bool IsShort => InUse > Retained;

    /// <exception cref="OutOfMemoryException">There is none, and no memory for one.</exception>
    public Slab Rent()
    {
        Slab slab = _pool.Get();
        Interlocked.Increment(ref _inUse);
        slab.Hold();
        return slab;
    }

    public void Return(Slab slab)
    {
        Interlocked.Decrement(ref _inUse);
        _pool.Return(slab);
    }

    Slab IPooledObjectPolicy<Slab>.Create()
    {
        Slab slab = Create();
        Interlocked.Increment(ref _made);
        return slab;
    }

    bool IPooledObjectPolicy<Slab>.Return(Slab obj) => true;

    protected virtual Slab Create() => new(this);
}
