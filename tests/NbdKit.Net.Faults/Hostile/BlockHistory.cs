using System.Runtime.InteropServices;

namespace NbdKit.Faults.Hostile;

/// <summary>
/// What was written to each block of 512 bytes, when, and by which of all clients: says of each read whether one disk that all of
/// them share can have answered it. A block holds the number of the write 64 times.
/// </summary>
/// <param name="blocks">The number of blocks.</param>
/// <param name="writes">The most writes that there will be.</param>
internal sealed class BlockHistory(int blocks, int writes)
{
    public const int BlockSize = 512;

    private readonly long[] _begin = new long[writes + 1];
    private readonly long[] _end = new long[writes + 1];
    private readonly int[] _first = new int[writes + 1];
    private readonly int[] _count = new int[writes + 1];

    // For each block, the latest beginning of a write that was over, or seen, by now: older contents may not come back.
    private readonly long[] _floor = new long[blocks];
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
        return write;
    }

    public void End(int write)
    {
        Volatile.Write(ref _end[write], Interlocked.Increment(ref _clock));
        for (int block = _first[write]; block < _first[write] + _count[write]; block++)
        {
            Raise(block, _begin[write]);
        }
    }

    /// <summary>What a read that begins now may not fall behind.</summary>
    public void Look(int block, Span<long> floors)
    {
        for (int i = 0; i < floors.Length; i++)
        {
            floors[i] = Volatile.Read(ref _floor[block + i]);
        }
    }

    /// <summary>Fails if a read cannot have returned this.</summary>
    public void Check(int block, ReadOnlySpan<byte> data, ReadOnlySpan<long> floors)
    {
        for (int i = 0; i < floors.Length; i++)
        {
            // Nobody promises that a write and what overlaps it meanwhile are apart: each word may be of another write, and each
            // must be of one that it can be of.
            ReadOnlySpan<long> words = MemoryMarshal.Cast<byte, long>(data.Slice(i * BlockSize, BlockSize));
            bool isWhole = !words.ContainsAnyExcept(words[0]);
            foreach (long word in isWhole ? words[..1] : words)
            {
                CheckWord(block + i, word, floors[i]);
            }
            if (isWhole && words[0] > 0)
            {
                Raise(block + i, Volatile.Read(ref _begin[(int)words[0]]));
            }
        }
    }

    private void CheckWord(int block, long word, long floor)
    {
        if (word == 0 && floor == 0)
        {
            return;
        }
        if (word <= 0 || word > Volatile.Read(ref _writes))
        {
            throw new InvalidOperationException($"Block {block} held {word:x}, which nobody wrote after it had been written.");
        }
        int write = (int)word;
        if (_first[write] > block || _first[write] + _count[write] <= block)
        {
            throw new InvalidOperationException($"Block {block} held write {write}, which was of block {_first[write]}.");
        }
        if (Volatile.Read(ref _end[write]) < floor)
        {
            throw new InvalidOperationException($"Block {block} held write {write}, which had been replaced before the read began.");
        }
    }

    private void Raise(int block, long begin)
    {
        long floor = Volatile.Read(ref _floor[block]);
        while (begin > floor)
        {
            long seen = Interlocked.CompareExchange(ref _floor[block], begin, floor);
            if (seen == floor)
            {
                return;
            }
            floor = seen;
        }
    }
}
