using System.Numerics;

namespace NbdKit.Filters.Luks;

// Filling one segment: each block is made of the one before it and of another one.
internal sealed partial class Argon2
{
    private void FillSegment(int pass, int slice, int lane)
    {
        bool byPlace = _kind == Argon2Kind.I || (_kind == Argon2Kind.Id && pass == 0 && slice < Slices / 2);
        Span<ulong> input = stackalloc ulong[BlockWords];
        Span<ulong> addresses = stackalloc ulong[BlockWords];
        Span<ulong> scratch = stackalloc ulong[BlockWords];
        Span<ulong> zero = stackalloc ulong[BlockWords];
        zero.Clear();
        input.Clear();
        input[0] = (ulong)pass;
        input[1] = (ulong)lane;
        input[2] = (ulong)slice;
        input[3] = (ulong)((long)_columns * _lanes);
        input[4] = (ulong)_passes;
        input[5] = (ulong)_kind;
        // The first two blocks of each lane are there from the start.
        for (int i = pass == 0 && slice == 0 ? 2 : 0; i < _segment; i++)
        {
            int column = (slice * _segment) + i;
            ReadOnlySpan<ulong> before = Block(lane, (column == 0 ? _columns : column) - 1);
            if (byPlace && (i % BlockWords == 0 || (i == 2 && pass == 0 && slice == 0)))
            {
                input[6]++;
                Compress(zero, input, addresses, scratch, merge: false);
                Compress(zero, addresses, addresses, scratch, merge: false);
            }
            ulong random = byPlace ? addresses[i % BlockWords] : before[0];
            int other = pass == 0 && slice == 0 ? lane : (int)((random >> 32) % (uint)_lanes);
            ReadOnlySpan<ulong> reference = Block(other, Reference(pass, slice, i, (uint)random, other == lane));
            Compress(before, reference, Block(lane, column), scratch, merge: pass > 0);
        }
    }

    /// <summary>The column of the other block: any that is complete, the later the likelier.</summary>
    private int Reference(int pass, int slice, int index, uint random, bool sameLane)
    {
        long area = (pass == 0 ? slice * _segment : _columns - _segment) + (sameLane ? index - 1 : index == 0 ? -1 : 0);
        ulong place = ((ulong)random * random) >> 32;
        long relative = area - 1 - (long)(((ulong)area * place) >> 32);
        long start = pass == 0 || slice == Slices - 1 ? 0 : (slice + 1) * _segment;
        return (int)((start + relative) % _columns);
    }

    /// <summary>Compresses two blocks to one (G in the standard).</summary>
    /// <param name="one">The first.</param>
    /// <param name="other">The second.</param>
    /// <param name="target">Receives the result; may be one of the two.</param>
    /// <param name="scratch">Room for another block.</param>
    /// <param name="merge">Whether what the target holds is added to the result.</param>
    private static void Compress(
        ReadOnlySpan<ulong> one, ReadOnlySpan<ulong> other, Span<ulong> target, Span<ulong> scratch, bool merge)
    {
        for (int i = 0; i < BlockWords; i++)
        {
            ulong sum = one[i] ^ other[i];
            scratch[i] = sum;
            target[i] = merge ? target[i] ^ sum : sum;
        }
        for (int i = 0; i < 8; i++)
        {
            Permute(scratch, 16 * i, 2);
        }
        for (int i = 0; i < 8; i++)
        {
            Permute(scratch, 2 * i, 16);
        }
        for (int i = 0; i < BlockWords; i++)
        {
            target[i] ^= scratch[i];
        }
    }

    /// <summary>Mixes 16 words (P in the standard): pairs of neighbours, each so many words after the one before.</summary>
    private static void Permute(Span<ulong> words, int start, int step)
    {
        Span<ulong> v = stackalloc ulong[16];
        for (int i = 0; i < 8; i++)
        {
            v[2 * i] = words[start + (i * step)];
            v[(2 * i) + 1] = words[start + (i * step) + 1];
        }
        Mix(ref v[0], ref v[4], ref v[8], ref v[12]);
        Mix(ref v[1], ref v[5], ref v[9], ref v[13]);
        Mix(ref v[2], ref v[6], ref v[10], ref v[14]);
        Mix(ref v[3], ref v[7], ref v[11], ref v[15]);
        Mix(ref v[0], ref v[5], ref v[10], ref v[15]);
        Mix(ref v[1], ref v[6], ref v[11], ref v[12]);
        Mix(ref v[2], ref v[7], ref v[8], ref v[13]);
        Mix(ref v[3], ref v[4], ref v[9], ref v[14]);
        for (int i = 0; i < 8; i++)
        {
            words[start + (i * step)] = v[2 * i];
            words[start + (i * step) + 1] = v[(2 * i) + 1];
        }
    }

    private static void Mix(ref ulong a, ref ulong b, ref ulong c, ref ulong d)
    {
        (ulong w, ulong x, ulong y, ulong z) = (a, b, c, d);
        w += x + (2UL * (uint)w * (uint)x);
        z = BitOperations.RotateRight(z ^ w, 32);
        y += z + (2UL * (uint)y * (uint)z);
        x = BitOperations.RotateRight(x ^ y, 24);
        w += x + (2UL * (uint)w * (uint)x);
        z = BitOperations.RotateRight(z ^ w, 16);
        y += z + (2UL * (uint)y * (uint)z);
        x = BitOperations.RotateRight(x ^ y, 63);
        (a, b, c, d) = (w, x, y, z);
    }
}
