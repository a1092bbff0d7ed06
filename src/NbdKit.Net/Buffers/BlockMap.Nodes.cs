using System.Numerics;

namespace NbdKit.Buffers;

// The nodes of the tree: null and Uniform for blocks that are all alike, Inner for 512 nodes of the next level, Leaf for
// 16,384 blocks.
internal sealed partial class BlockMap
{
    private abstract class Node;

    private sealed class Uniform : Node
    {
        private static readonly Uniform Stored = new(BlockState.Stored);
        private static readonly Uniform Trimmed = new(BlockState.Trimmed);
        private static readonly Uniform Changed = new(BlockState.Changed);

        private Uniform(BlockState state) => State = state;

        public BlockState State { get; }

        public static Uniform? Of(BlockState state) => state switch
        {
            BlockState.Stored => Stored,
            BlockState.Trimmed => Trimmed,
            BlockState.Changed => Changed,
            _ => null,
        };
    }

    private sealed class Inner : Node
    {
        public Inner(Node? uniform)
        {
            if (uniform is not null)
            {
                Array.Fill(Children, uniform);
            }
        }

        public Node?[] Children { get; } = new Node?[1 << FanShift];
    }

    private sealed class Leaf : Node
    {
        private const int WordShift = 5;
        private const int InWord = (1 << WordShift) - 1;

        // Block 32w + i of the leaf has bits 2i and 2i + 1 of word w.
        private readonly ulong[] _words = new ulong[1 << (LeafShift - WordShift)];

        public Leaf(BlockState state)
        {
            if (state != BlockState.Below)
            {
                Array.Fill(_words, Pattern(state));
            }
        }

        public BlockState Get(long block)
            => (BlockState)((Volatile.Read(ref Word(block)) >> (2 * (int)(block & InWord))) & 3);

        public long RunEnd(long from, long stop, BlockState state)
        {
            ulong pattern = Pattern(state);
            while (from < stop)
            {
                int skip = (int)(from & InWord);
                ulong different = (Volatile.Read(ref Word(from)) ^ pattern) >> (2 * skip);
                if (different != 0)
                {
                    return Math.Min(stop, from + (BitOperations.TrailingZeroCount(different) / 2));
                }
                from += InWord + 1 - skip;
            }
            return stop;
        }

        public void Set(long from, long to, BlockState state)
        {
            ulong pattern = Pattern(state);
            while (from < to)
            {
                int skip = (int)(from & InWord);
                int count = (int)Math.Min(InWord + 1 - skip, to - from);
                ulong mask = (ulong.MaxValue >> (64 - (2 * count))) << (2 * skip);
                ref ulong word = ref Word(from);
                Volatile.Write(ref word, (word & ~mask) | (pattern & mask));
                from += count;
            }
        }

        private ref ulong Word(long block) => ref _words[(int)(block & ((1 << LeafShift) - 1)) >> WordShift];

        private static ulong Pattern(BlockState state) => (ulong)state * 0x5555_5555_5555_5555;
    }
}
