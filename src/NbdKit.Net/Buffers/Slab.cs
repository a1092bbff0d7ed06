using System.Runtime.InteropServices;

namespace NbdKit.Buffers;

/// <summary>
/// A block of pinned memory shared by several users: the messages received into it, or the replies staged in it. Goes back
/// to its pool when the last of them lets go.
/// </summary>
internal sealed class Slab
{
    public const int Size = 256 << 10;

    private readonly SlabPool _pool;
    private int _users;

    public Slab(SlabPool pool)
    {
        _pool = pool;
        // So marked, it is pinned for free wherever memory has to be pinned for a system call.
        Memory = MemoryMarshal.CreateFromPinnedArray(GC.AllocateUninitializedArray<byte>(Size, pinned: true), 0, Size);
    }

    public Memory<byte> Memory { get; }

    /// <summary>Whether the caller is the only user left.</summary>
    public bool IsSole => Volatile.Read(ref _users) == 1;

    public void Hold() => Interlocked.Increment(ref _users);

    public void Release()
    {
        if (Interlocked.Decrement(ref _users) == 0)
        {
            _pool.Return(this);
        }
    }
}
