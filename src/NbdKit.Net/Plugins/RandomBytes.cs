using System.Numerics;
using System.Runtime.Intrinsics;

namespace NbdKit.Plugins;

/// <summary>The bytes of disks of random data, many at a time; <see cref="Xoshiro"/> makes the same ones one by one.</summary>
internal static class RandomBytes
{
    /// <summary>The bytes that one request makes where it is received: more of them would hold up those behind it.</summary>
    public const int MostInline = 64 << 10;

    /// <summary>The blocks that <see cref="FillBlocks"/> makes at a time.</summary>
    public const int BlocksAtATime = 4;

    private const ulong Step = 0x9e37_79b9_7f4a_7c15;
    private const ulong FirstFactor = 0xbf58_476d_1ce4_e5b9;
    private const ulong SecondFactor = 0x94d0_49bb_1331_11eb;

    /// <summary>Makes bytes, each of which is the lowest one of the third output of a generator with a seed of its own.</summary>
    /// <param name="buffer">Where they go.</param>
    /// <param name="seed">The seed of the first one; each has one more than that before it.</param>
    public static void FillEach(Span<byte> buffer, ulong seed)
    {
        if (Vector256.IsHardwareAccelerated)
        {
            Vector256<ulong> seeds = Vector256.Create(seed) + Vector256.Create(0UL, 1, 2, 3);
            while (buffer.Length >= Vector256<byte>.Count)
            {
                Vector256.Narrow(
                    Vector256.Narrow(
                        Vector256.Narrow(Third(seeds), Third(seeds + Vector256.Create(4UL))),
                        Vector256.Narrow(Third(seeds + Vector256.Create(8UL)), Third(seeds + Vector256.Create(12UL)))),
                    Vector256.Narrow(
                        Vector256.Narrow(Third(seeds + Vector256.Create(16UL)), Third(seeds + Vector256.Create(20UL))),
                        Vector256.Narrow(Third(seeds + Vector256.Create(24UL)), Third(seeds + Vector256.Create(28UL)))))
                    .CopyTo(buffer);
                seeds += Vector256.Create((ulong)Vector256<byte>.Count);
                seed += (ulong)Vector256<byte>.Count;
                buffer = buffer[Vector256<byte>.Count..];
            }
        }
        foreach (ref byte b in buffer)
        {
            b = Third(seed++);
        }
    }

    /// <summary>Makes neighbouring blocks, each the lowest bytes of the outputs of a generator with a seed of its own.</summary>
    /// <param name="buffer">Where they go: <see cref="BlocksAtATime"/> blocks of the same size, a multiple of 8.</param>
    /// <param name="seed">The seed of the first block; each has the size of a block more than that before it.</param>
    public static void FillBlocks(Span<byte> buffer, ulong seed)
    {
        int size = buffer.Length / BlocksAtATime;
        Vector256<ulong> seeds = Vector256.Create(seed) + (Vector256.Create(0UL, 1, 2, 3) * (ulong)size);
        Vector256<ulong> a = Split(seeds + Vector256.Create(Step));
        Vector256<ulong> b = Split(seeds + Vector256.Create(unchecked(2 * Step)));
        Vector256<ulong> c = Split(seeds + Vector256.Create(unchecked(3 * Step)));
        Vector256<ulong> d = Split(seeds + Vector256.Create(unchecked(4 * Step)));
        for (int at = 0; at < size; at += sizeof(ulong))
        {
            Vector256<ulong> eight = default;
            for (int i = 0; i < sizeof(ulong); i++)
            {
                eight = (eight >>> 8) | (Output((b << 2) + b) << 56);
                Vector256<ulong> shifted = b << 17;
                c ^= a;
                d ^= b;
                b ^= c;
                a ^= d;
                c ^= shifted;
                d = (d << 45) | (d >>> 19);
            }
            for (int block = 0; block < BlocksAtATime; block++)
            {
                System.Buffers.Binary.BinaryPrimitives.WriteUInt64LittleEndian(buffer[((block * size) + at)..], eight[block]);
            }
        }
    }

    // Of the state (a, b, c, d), the third output needs a ^ d ^ (b << 17) only: all else of two steps cancels out.
    private static Vector256<ulong> Third(Vector256<ulong> seeds)
    {
        Vector256<ulong> x = Split(seeds + Vector256.Create(Step))
            ^ Split(seeds + Vector256.Create(unchecked(4 * Step)))
            ^ (Split(seeds + Vector256.Create(unchecked(2 * Step))) << 17);
        return Output((x << 2) + x) & Vector256.Create(0xFFUL);
    }

    private static byte Third(ulong seed)
    {
        ulong x = Split(seed + Step) ^ Split(seed + unchecked(4 * Step)) ^ (Split(seed + unchecked(2 * Step)) << 17);
        return (byte)(BitOperations.RotateLeft(x * 5, 7) * 9);
    }

    /// <summary>The outputs of states whose second part, times five, this is.</summary>
    private static Vector256<ulong> Output(Vector256<ulong> x)
    {
        Vector256<ulong> turned = (x << 7) | (x >>> 57);
        return (turned << 3) + turned;
    }

    private static Vector256<ulong> Split(Vector256<ulong> z)
    {
        z = (z ^ (z >>> 30)) * FirstFactor;
        z = (z ^ (z >>> 27)) * SecondFactor;
        return z ^ (z >>> 31);
    }

    private static ulong Split(ulong z)
    {
        z = (z ^ (z >> 30)) * FirstFactor;
        z = (z ^ (z >> 27)) * SecondFactor;
        return z ^ (z >> 31);
    }
}
