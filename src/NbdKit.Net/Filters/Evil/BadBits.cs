namespace NbdKit.Filters.Evil;

/// <summary>
/// Where bits are bad: bursts of one length, with gaps between them that are distributed as if each bit decided by itself whether a
/// burst begins there. Everything follows from a seed, and is found by going from one burst to the next.
/// </summary>
internal readonly struct BadBits
{
    // Far beyond the end of any disk, and far from overflow.
    private const double LongestGap = 1L << 61;

    private readonly double _logOfNone;
    private readonly int _burst;

    /// <param name="probability">That a bit is bad: above 0, at most 1.</param>
    /// <param name="burst">The number of neighbouring bits that are bad together, at least 1.</param>
    public BadBits(double probability, int burst)
    {
        _burst = burst;
        // Of a burst and the gap before it, on average the given share is bad.
        double begins = probability / (probability + (burst * (1 - probability)));
        _logOfNone = begins < 1e-5 ? -begins - (begins * begins / 2) : Math.Log(1 - begins);
        double wanted = Math.Max(100 / begins, 64.0 * burst);
        long block = 512;
        while (block * 8.0 < wanted && block < 1L << 57)
        {
            block *= 2;
        }
        BlockSize = block;
    }

    /// <summary>
    /// The bytes that one seed serves: enough for a hundred bursts, so that there is no more to go through than that, and more than one
    /// that ends with its block hardly matters.
    /// </summary>
    public long BlockSize { get; }

    /// <summary>Flips the bad bits of a buffer.</summary>
    /// <param name="buffer">The bytes.</param>
    /// <param name="seed">Decides which bits are bad.</param>
    public void Flip(Span<byte> buffer, ulong seed)
    {
        var random = new SplitMix(seed);
        foreach ((long from, long to, _) in new Walk(this, ref random, 0, buffer.Length))
        {
            for (long bit = from; bit < to; bit++)
            {
                buffer[(int)(bit >> 3)] ^= (byte)(1 << (int)(bit & 7));
            }
        }
    }

    /// <summary>Makes the bad bits of a buffer what they are stuck at.</summary>
    /// <param name="buffer">The bytes.</param>
    /// <param name="start">Where in its block the buffer begins.</param>
    /// <param name="seed">The seed of the block.</param>
    /// <param name="shows">How likely it is that a bad bit shows.</param>
    /// <param name="chance">Decides which of them show.</param>
    public void Stick(Span<byte> buffer, long start, ulong seed, double shows, ref SplitMix chance)
    {
        var random = new SplitMix(seed);
        foreach ((long from, long to, ulong fate) in new Walk(this, ref random, start, buffer.Length))
        {
            for (long bit = from; bit < to; bit++)
            {
                if (shows < 1 && chance.NextDouble() >= shows)
                {
                    continue;
                }
                long at = bit - (start * 8);
                byte mask = (byte)(1 << (int)(at & 7));
                ref byte value = ref buffer[(int)(at >> 3)];
                bool high = (SplitMix.Mix(fate ^ (ulong)bit) & 1) != 0;
                value = (byte)(high ? value | mask : value & ~mask);
            }
        }
    }

    private long Gap(ref SplitMix random)
        => (long)Math.Min(Math.Log(1 - random.NextDouble()) / _logOfNone, LongestGap);

    /// <summary>Goes through the bursts of a block that reach into a range of its bytes: first bit, bit after the last, fate.</summary>
    private ref struct Walk
    {
        private readonly BadBits _bits;
        private readonly long _from;
        private readonly long _end;
        private ref SplitMix _random;
        private long _at;

        public Walk(BadBits bits, ref SplitMix random, long start, int length)
        {
            _bits = bits;
            _random = ref random;
            _from = start * 8;
            _end = _from + (length * 8L);
        }

        public (long From, long To, ulong Fate) Current { get; private set; }

        public readonly Walk GetEnumerator() => this;

        public bool MoveNext()
        {
            while (true)
            {
                _at += _bits.Gap(ref _random);
                ulong fate = _random.Next();
                if (_at >= _end)
                {
                    return false;
                }
                long first = Math.Max(_at, _from);
                _at += _bits._burst;
                if (_at > _from)
                {
                    Current = (first, Math.Min(_at, _end), fate);
                    return true;
                }
            }
        }
    }
}
