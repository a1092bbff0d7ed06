using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace NbdKit.Filters.Luks;

/// <summary>Exclusive or of spans of equal length, a multiple of 16 bytes.</summary>
internal static class BlockXor
{
    /// <summary>The target may be one of the two; otherwise they must not overlap.</summary>
    public static void Apply(ReadOnlySpan<byte> one, ReadOnlySpan<byte> other, Span<byte> target)
    {
        int wide = one.Length & ~31;
        ReadOnlySpan<Vector256<byte>> a = MemoryMarshal.Cast<byte, Vector256<byte>>(one[..wide]);
        ReadOnlySpan<Vector256<byte>> b = MemoryMarshal.Cast<byte, Vector256<byte>>(other[..wide]);
        Span<Vector256<byte>> to = MemoryMarshal.Cast<byte, Vector256<byte>>(target[..wide]);
        for (int i = 0; i < to.Length; i++)
        {
            to[i] = a[i] ^ b[i];
        }
        if (wide < one.Length)
        {
            (Vector128.Create(one[wide..]) ^ Vector128.Create(other[wide..])).CopyTo(target[wide..]);
        }
    }
}
