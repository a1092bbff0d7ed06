using BlockKey = (NbdKit.Layers.IBlockSource Source, long Position);

namespace NbdKit.Layers;

/// <summary>
/// The blocks that were used last, up to a number of bytes. A block that several want at once is loaded once. Safe for use by
/// several threads.
/// </summary>
internal sealed class BlockCache
{
    private readonly long _capacity;
    private readonly Lock _lock = new();
    private readonly Dictionary<BlockKey, LinkedListNode<(BlockKey Key, byte[] Data)>> _blocks = [];
    private readonly Dictionary<BlockKey, Task> _loading = [];
    private readonly LinkedList<(BlockKey Key, byte[] Data)> _byUse = [];
    private long _bytes;

    /// <param name="capacity">The number of bytes; one block is kept however large it is.</param>
    public BlockCache(long capacity) => _capacity = capacity;

    /// <summary>The number of bytes in it.</summary>
    public long Bytes
    {
        get
        {
            lock (_lock)
            {
                return _bytes;
            }
        }
    }

    public ValueTask<byte[]> GetAsync(IBlockSource source, long position, CancellationToken cancellationToken)
    {
        BlockKey key = (source, position);
        lock (_lock)
        {
            if (Find(key) is { } data)
            {
                return new(data);
            }
        }
        return LoadAsync(key, cancellationToken);
    }

    private async ValueTask<byte[]> LoadAsync(BlockKey key, CancellationToken cancellationToken)
    {
        var loaded = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        while (true)
        {
            Task? other;
            lock (_lock)
            {
                if (Find(key) is { } data)
                {
                    return data;
                }
                if (!_loading.TryGetValue(key, out other))
                {
                    _loading.Add(key, loaded.Task);
                    break;
                }
            }
            // Whoever loads it may fail, or give up: then it is this one's turn.
            await other.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            byte[] data = await key.Source.LoadAsync(key.Position, cancellationToken).ConfigureAwait(false);
            lock (_lock)
            {
                Add(key, data);
            }
            return data;
        }
        finally
        {
            lock (_lock)
            {
                _loading.Remove(key);
            }
            loaded.SetResult();
        }
    }

    private byte[]? Find(BlockKey key)
    {
        if (!_blocks.TryGetValue(key, out LinkedListNode<(BlockKey Key, byte[] Data)>? node))
        {
            return null;
        }
        if (node != _byUse.First)
        {
            _byUse.Remove(node);
            _byUse.AddFirst(node);
        }
        return node.Value.Data;
    }

    private void Add(BlockKey key, byte[] data)
    {
        _blocks.Add(key, _byUse.AddFirst((key, data)));
        _bytes += data.Length;
        while (_bytes > _capacity && _byUse.Count > 1)
        {
            (BlockKey oldest, byte[] dropped) = _byUse.Last!.Value;
            _byUse.RemoveLast();
            _blocks.Remove(oldest);
            _bytes -= dropped.Length;
        }
    }
}
