using System.Runtime.InteropServices;

namespace NbdKit.Tests.Faults;

/// <summary>
/// What was written to each block of 512 bytes, when, and by which of all clients: says of each block that was read whether one
/// disk that all of them share can have held it. A block holds the number of the write 64 times. Safe for any number of threads.
/// </summary>
/// <remarks>
/// <para>
/// A block that one write wrote whole is whole, unless another write to it was in flight together with that one or with the read.
/// More is not promised. The protocol says nothing of requests that overlap in range and in time; nor does nbdkit; Linux copies
/// pages for a reader that others write to meanwhile; and the memory plugin, which sends its pages and not a copy, says that such
/// requests may leave either's bytes. Then each word by itself must be of a write that can be there.
/// </para>
/// <para>
/// What two such writes have left stays, though: while no write to it is in flight, a block is the same for everybody.
/// </para>
/// </remarks>
/// <param name="blocks">The number of blocks.</param>
/// <param name="writes">The most writes that there will be.</param>
internal sealed class BlockHistory(int blocks, int writes)
{
    public const int BlockSize = 512;

    private const int InFlightBits = 20;
    private const long InFlightMask = (1 << InFlightBits) - 1;

    private readonly long[] _begin = new long[writes + 1];
    private readonly long[] _end = new long[writes + 1];
    private readonly int[] _first = new int[writes + 1];
    private readonly int[] _count = new int[writes + 1];

    // For each block, the latest beginning of a write that was over; that was over or seen; that was over before a flush which is
    // over too, or had FUA. What is older may not come back.
    private readonly long[] _over = new long[blocks];
    private readonly long[] _seen = new long[blocks];
    private readonly long[] _durable = new long[blocks];

    private readonly long[] _states = new long[blocks];
    private readonly QuietBlock[] _quiet = [.. Enumerable.Range(0, blocks).Select(_ => new QuietBlock())];
    private long _clock;
    private int _writes;

    /// <summary>Fills data that no other write has, and notes that its write begins.</summary>
    public int Begin(int block, Span<byte> data)
    {
        int write = Interlocked.Increment(ref _writes);
        MemoryMarshal.Cast<byte, long>(data).Fill(write);
        _first[write] = block;
        _count[write] = data.Length / BlockSize;
        Volatile.Write(ref _end[write], long.MaxValue);
        Volatile.Write(ref _begin[write], Interlocked.Increment(ref _clock));
        for (int i = block; i < block + _count[write]; i++)
        {
            Interlocked.Add(ref _states[i], (1 << InFlightBits) + 1);
        }
        return write;
    }

    /// <summary>A write was answered.</summary>
    public void End(int write, bool isDurable)
    {
        Volatile.Write(ref _end[write], Interlocked.Increment(ref _clock));
        for (int block = _first[write]; block < _first[write] + _count[write]; block++)
        {
            Raise(ref _over[block], _begin[write]);
            Raise(ref _seen[block], _begin[write]);
            Raise(ref _durable[block], isDurable ? _begin[write] : 0);
            Interlocked.Decrement(ref _states[block]);
        }
    }

    /// <summary>What a read that begins now may not fall behind.</summary>
    public void Look(int block, int count, BlockSight sight)
    {
        for (int i = 0; i < count; i++)
        {
            sight.States[i] = Volatile.Read(ref _states[block + i]);
            sight.Floors[i] = Volatile.Read(ref _seen[block + i]);
        }
    }

    /// <summary>What a flush that begins now makes durable, of all blocks.</summary>
    public void BeginFlush(BlockSight sight) => _over.CopyTo(sight.Floors, 0);

    /// <summary>A flush was answered.</summary>
    public void EndFlush(BlockSight sight)
    {
        for (int block = 0; block < blocks; block++)
        {
            Raise(ref _durable[block], sight.Floors[block]);
        }
    }

    /// <summary>What the power may not take if it is cut now, of all blocks.</summary>
    public void LookDurable(BlockSight sight) => _durable.CopyTo(sight.Floors, 0);

    /// <summary>Fails if a read cannot have returned this.</summary>
    public void Check(int block, ReadOnlySpan<byte> data, BlockSight sight)
    {
        for (int i = 0; i < data.Length / BlockSize; i++)
        {
            ReadOnlySpan<long> words = WordsOf(data, i);
            CheckBlock(block + i, words, sight.Floors[i], "", "before the read began");
            if (words[0] > 0 && IsWhole(words))
            {
                Raise(ref _seen[block + i], Volatile.Read(ref _begin[(int)words[0]]));
            }
            long state = sight.States[i];
            if ((state & InFlightMask) == 0 && state == Volatile.Read(ref _states[block + i])
                && _quiet[block + i].Changed(state, words) is { } changed)
            {
                throw new InvalidOperationException(
                    $"Block {block + i} held {Text(changed)} and then {Text(words)}, and nobody wrote to it between.");
            }
        }
    }

    /// <summary>Fails if a power cut cannot have left this.</summary>
    public void CheckImage(ReadOnlySpan<byte> image, BlockSight sight)
    {
        for (int block = 0; block < blocks; block++)
        {
            CheckBlock(block, WordsOf(image, block), sight.Floors[block], " after a power cut", "durably");
        }
    }

    private static ReadOnlySpan<long> WordsOf(ReadOnlySpan<byte> data, int block)
        => MemoryMarshal.Cast<byte, long>(data.Slice(block * BlockSize, BlockSize));

    private static bool IsWhole(ReadOnlySpan<long> words) => !words.ContainsAnyExcept(words[0]);

    private static string Text(ReadOnlySpan<long> words)
        => string.Join(" and ", words.ToArray().Distinct().Select(word => word == 0 ? "zeroes" : $"write {word}"));

    private static void Raise(ref long place, long begin)
    {
        long floor = Volatile.Read(ref place);
        while (begin > floor)
        {
            long seen = Interlocked.CompareExchange(ref place, begin, floor);
            if (seen == floor)
            {
                return;
            }
            floor = seen;
        }
    }

    private void CheckBlock(int block, ReadOnlySpan<long> words, long floor, string where, string when)
    {
        bool isWhole = IsWhole(words);
        foreach (long word in isWhole ? words[..1] : words)
        {
            if (Wrong(block, word, floor, when) is { } wrong)
            {
                throw new InvalidOperationException(isWhole
                    ? $"Block {block}{where} held {Text(words)}{wrong}."
                    : $"Block {block}{where} was torn: it held {Text(words)}, and {Text([word])}{wrong}.");
            }
        }
    }

    private string? Wrong(int block, long word, long floor, string when)
    {
        if (word == 0 && floor == 0)
        {
            return null;
        }
        if (word < 0 || word > Volatile.Read(ref _writes))
        {
            return ", which nobody wrote";
        }
        int write = (int)word;
        if (write > 0 && (_first[write] > block || _first[write] + _count[write] <= block))
        {
            return $", which was of the blocks from {_first[write]} to {_first[write] + _count[write] - 1}";
        }
        // Zeroes were there at the moment 0.
        return Volatile.Read(ref _end[write]) >= floor
            ? null : $", which write {Array.IndexOf(_begin, floor, 1)} had replaced {when}";
    }

    /// <summary>What a block was seen to hold while nobody wrote to it.</summary>
    private sealed class QuietBlock
    {
        private readonly Lock _lock = new();
        private readonly long[] _words = new long[BlockSize / sizeof(long)];
        private long _state = -1;

        /// <summary>What the block held in the same state before, if that is something else; null if not.</summary>
        public long[]? Changed(long state, ReadOnlySpan<long> words)
        {
            lock (_lock)
            {
                if (state > _state)
                {
                    _state = state;
                    words.CopyTo(_words);
                }
                return state < _state || words.SequenceEqual(_words) ? null : [.. _words];
            }
        }
    }
}
