using Microsoft.Extensions.ObjectPool;

namespace NbdKit.Buffers;

/// <summary>The slabs of one server. What is rented has one user: whoever rented it.</summary>
internal sealed class SlabPool : IPooledObjectPolicy<Slab>
{
    // What idle connections gave back and busy ones will want again; more is left to the garbage collector.
    public const int Retained = 64;

    private readonly ObjectPool<Slab> _pool;
    private int _made;

    public SlabPool() => _pool = new DefaultObjectPool<Slab>(this, Retained);

    /// <summary>How many slabs were ever made.</summary>
    public int Made => Volatile.Read(ref _made);

    public Slab Rent()
    {
        Slab slab = _pool.Get();
        slab.Hold();
        return slab;
    }

    public void Return(Slab slab) => _pool.Return(slab);

    Slab IPooledObjectPolicy<Slab>.Create()
    {
        Interlocked.Increment(ref _made);
        return new(this);
    }

    bool IPooledObjectPolicy<Slab>.Return(Slab obj) => true;
}
