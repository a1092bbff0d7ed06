using System.Buffers;

namespace NbdKit.Buffers;

/// <summary>
/// Arrays for the payloads of one server. The shared pool takes the next power of two, twice as much for the largest payload and
/// its header, and each thread keeps what came back for itself: what clients may make a server hold would be a multiple of its
/// limits. So only arrays that are small enough go there. Larger ones are as long as they must be, and a few of those that came
/// back are kept for the next request of about that size, up to <paramref name="maxKept"/> bytes of them.
/// </summary>
/// <remarks>All members may be called from any thread.</remarks>
internal sealed class PayloadArrays(long maxKept)
{
    /// <summary>The longest array that comes from the shared pool.</summary>
    public const int MaxPooled = 1 << 20;

    // As many as a client keeps in flight that copies a disk. More would take longer to look through.
    private const int MaxKeptCount = 16;

    private readonly Lock _lock = new();

    // In the order in which they came back.
    private readonly List<byte[]> _kept = new(MaxKeptCount);
    private long _keptBytes;
    private bool _isUsed;
    private int _largeInUse;

    /// <summary>The arrays in use that are too large for the shared pool.</summary>
    public int LargeInUse => Volatile.Read(ref _largeInUse);

    /// <summary>An array of at least so many bytes, of any content.</summary>
    /// <exception cref="OutOfMemoryException">There is not so much memory, not even after a collection.</exception>
    public byte[] Rent(int size)
    {
        if (size <= MaxPooled)
        {
            return ArrayPool<byte>.Shared.Rent(size);
        }
        byte[] array = TakeKept(size) ?? Allocate(size);
        Interlocked.Increment(ref _largeInUse);
        return array;
    }

    /// <summary>Gives back an array, once.</summary>
    public void Return(byte[] array)
    {
        if (array.Length <= MaxPooled)
        {
            ArrayPool<byte>.Shared.Return(array);
            return;
        }
        Interlocked.Decrement(ref _largeInUse);
        if (array.Length > maxKept)
        {
            return;
        }
        lock (_lock)
        {
            // The newest is the likeliest to be asked for; without this, sizes that nobody uses any more would stay.
            while (_kept.Count == MaxKeptCount || _keptBytes + array.Length > maxKept)
            {
                RemoveAt(0);
            }
            _kept.Add(array);
            _keptBytes += array.Length;
        }
    }

    /// <summary>Gives up what is kept if nothing of it was used since the last call.</summary>
    public void Age()
    {
        lock (_lock)
        {
            if (!_isUsed)
            {
                DropKept();
            }
            _isUsed = false;
        }
    }

    private byte[] Allocate(int size)
    {
        try
        {
            return GC.AllocateUninitializedArray<byte>(size);
        }
        catch (OutOfMemoryException)
        {
            // Where the heap has a hard limit, arrays that were given back may lie in the way of a new one until they are collected.
            DropKept();
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            return GC.AllocateUninitializedArray<byte>(size);
        }
    }

    private byte[]? TakeKept(int size)
    {
        lock (_lock)
        {
            _isUsed = true;
            // The one that came back last may still be in the processor's caches.
            for (int i = _kept.Count - 1; i >= 0; i--)
            {
                byte[] array = _kept[i];
                // Requests are counted by what they ask for; what they hold must not be much more.
                if (array.Length >= size && array.Length - size <= size / 8)
                {
                    RemoveAt(i);
                    return array;
                }
            }
            return null;
        }
    }

    private void RemoveAt(int index)
    {
        _keptBytes -= _kept[index].Length;
        _kept.RemoveAt(index);
    }

    private void DropKept()
    {
        lock (_lock)
        {
            _kept.Clear();
            _keptBytes = 0;
        }
    }
}
