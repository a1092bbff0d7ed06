using NbdKit.Layers;

namespace NbdKit.Filters.Ext2;

/// <summary>The blocks of metadata that were used last, up to a limit. Safe for use by several threads.</summary>
/// <remarks>Nothing that is written through a file changes metadata, so what was read stays right.</remarks>
internal sealed class MetadataCache
{
    private const int LargestSize = 1 << 20;

    private readonly ImageDisk _disk;
    private readonly int _blockSize;
    private readonly Lock _lock = new();
    private readonly Dictionary<long, LinkedListNode<MetadataBlock>> _blocks = [];
    private readonly LinkedList<MetadataBlock> _byUse = [];

    public MetadataCache(ImageDisk disk, int blockSize)
    {
        _disk = disk;
        _blockSize = blockSize;
    }

    /// <summary>Reads a block; the caller has checked that it is inside the file system.</summary>
    public ValueTask<MetadataBlock> ReadAsync(long number, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_blocks.TryGetValue(number, out LinkedListNode<MetadataBlock>? node))
            {
                _byUse.Remove(node);
                _byUse.AddFirst(node);
                return new(node.Value);
            }
        }
        return LoadAsync(number, cancellationToken);
    }

    private async ValueTask<MetadataBlock> LoadAsync(long number, CancellationToken cancellationToken)
    {
        byte[] data = new byte[_blockSize];
        await _disk.ReadAsync(data, number * _blockSize, cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            if (_blocks.TryGetValue(number, out LinkedListNode<MetadataBlock>? known))
            {
                return known.Value;
            }
            if ((_blocks.Count + 1) * _blockSize > LargestSize)
            {
                _blocks.Remove(_byUse.Last!.Value.Number);
                _byUse.RemoveLast();
            }
            var block = new MetadataBlock(number, data);
            _blocks.Add(number, _byUse.AddFirst(block));
            return block;
        }
    }
}
