using System.Buffers;

namespace NbdKit.Buffers;

/// <summary>
/// Arrays for payloads of their own. The shared pool takes the next power of two, twice as much for the largest payload and its
/// header, and each thread keeps what came back for itself: what clients may make a server hold would be a multiple of its limits.
/// So only arrays that are small enough go there, and larger ones are as long as they must be and left to the collector.
/// </summary>
internal static class PayloadArrays
{
    /// <summary>The longest array that comes from the pool.</summary>
    public const int MaxPooled = 1 << 20;

    /// <summary>An array of at least so many bytes, of any content.</summary>
    /// <exception cref="OutOfMemoryException">There is not so much memory, not even after a collection.</exception>
    public static byte[] Rent(int size)
    {
        if (size <= MaxPooled)
        {
            return ArrayPool<byte>.Shared.Rent(size);
        }
        try
        {
            return GC.AllocateUninitializedArray<byte>(size);
        }
        catch (OutOfMemoryException)
        {
            // Where the heap has a hard limit, arrays that were given back may lie in the way of a new one until they are collected.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            return GC.AllocateUninitializedArray<byte>(size);
        }
    }

    /// <summary>Gives back an array, once.</summary>
    public static void Return(byte[] array)
    {
        if (array.Length <= MaxPooled)
        {
            ArrayPool<byte>.Shared.Return(array);
        }
    }
}
