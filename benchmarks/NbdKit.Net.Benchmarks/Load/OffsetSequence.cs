namespace NbdKit.Benchmarks.Load;

/// <summary>Where the requests of one connection go: block after block, or xorshift's idea of random.</summary>
internal struct OffsetSequence
{
    private readonly ulong _blocks;
    private readonly long _distance;
    private readonly bool _random;
    private ulong _state;

    public OffsetSequence(Work work, long size, int connection)
    {
        long blocks = work.Blocks ?? (size / work.BlockSize);
        ArgumentOutOfRangeException.ThrowIfLessThan(size / work.BlockSize, blocks);
        ArgumentOutOfRangeException.ThrowIfLessThan(blocks, 1);
        _blocks = (ulong)blocks;
        _distance = size / blocks / work.BlockSize * work.BlockSize;
        _random = work.Random;
        // Connections start apart from each other.
        _state = _random
            ? 88172645463325252 ^ ((ulong)connection * 0x9e3779b97f4a7c15)
            : (ulong)connection * _blocks / (ulong)work.Connections;
    }

    public long Next()
    {
        if (!_random)
        {
            return (long)(_state++ % _blocks) * _distance;
        }
        _state ^= _state << 13;
        _state ^= _state >> 7;
        _state ^= _state << 17;
        return (long)Math.BigMul(_state, _blocks, out _) * _distance;
    }
}
