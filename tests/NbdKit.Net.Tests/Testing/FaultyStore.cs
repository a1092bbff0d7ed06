using NbdKit.Buffers;

namespace NbdKit.Tests.Testing;

/// <summary>A store in memory that is full from some number of blocks on, and fails when it is told to.</summary>
/// <param name="blockSize">The size of what is written to it at once, at most.</param>
internal sealed class FaultyStore(int blockSize) : IOverlayStore
{
    private const int DiskFull = 28;

    private readonly Lock _lock = new();
    private readonly HashSet<long> _blocks = [];
    private readonly MemoryOverlayStore _store = new(blockSize);

    /// <summary>The number of different blocks that it takes. Those it has can always be written again.</summary>
    public int Capacity { get; set; } = int.MaxValue;

    public bool FailsWrites { get; set; }

    public bool FailsReads { get; set; }

    /// <summary>The largest number of blocks it had.</summary>
    public int Blocks
    {
        get
        {
            lock (_lock)
            {
                return _blocks.Count;
            }
        }
    }

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => FailsReads ? throw new IOException("the store cannot be read") : _store.ReadAsync(buffer, offset, cancellationToken);

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        if (FailsWrites)
        {
            throw new IOException("the store cannot be written");
        }
        lock (_lock)
        {
            for (long block = offset / blockSize; block <= (offset + data.Length - 1) / blockSize; block++)
            {
                if (_blocks.Count >= Capacity && !_blocks.Contains(block))
                {
                    throw new IOException("no space left", DiskFull);
                }
                _blocks.Add(block);
            }
        }
        return _store.WriteAsync(data, offset, cancellationToken);
    }

    // A file gives no space back either.
    public void Discard(long offset, long length) => _store.Discard(offset, length);

    public void Dispose() => _store.Dispose();
}
