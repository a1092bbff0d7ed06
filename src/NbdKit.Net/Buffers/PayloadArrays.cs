using System.Buffers;

namespace NbdKit.Buffers;

/// <summary>
/// Arrays for payloads of their own. The shared pool takes the next power of two, twice as much for the largest payload and its
/// header, and each thread keeps what came back for itself: what clients may make a server hold would be a multiple of its limits.
/// So only arrays that are small enough go there, and larger ones are as long as they must be and left to the collector.
/// </summary>
internal static class PayloadArrays
{
    /// <summary>The longest array that comes from the pool: enough for a payload of 1 MiB, which is common, with its header.</summary>
    public const int MaxPooled = 2 << 20;

    /// <summary>An array of at least so many bytes, of any content.</summary>
    public static byte[] Rent(int size)
        => size <= MaxPooled ? ArrayPool<byte>.Shared.Rent(size) : GC.AllocateUninitializedArray<byte>(size);

    /// <summary>Gives back an array, once.</summary>
    public static void Return(byte[] array)
    {
        if (array.Length <= MaxPooled)
        {
            ArrayPool<byte>.Shared.Return(array);
        }
    }
}
