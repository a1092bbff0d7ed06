namespace NbdKit.Filters.Ext2;

/// <summary>
/// The map of a file without extents: 12 blocks in the inode, then a block of blocks, a block of those, and a block of
/// those. 0 is a hole, however much there could be below it.
/// </summary>
internal sealed class IndirectBlocks : IFileMap
{
    private const int Direct = 12;
    private const int Levels = 3;

    private readonly Volume _volume;
    private readonly Inode _inode;
    private readonly long _perBlock;

    public IndirectBlocks(Volume volume, Inode inode)
    {
        _volume = volume;
        _inode = inode;
        _perBlock = volume.Superblock.BlockSize / sizeof(uint);
    }

    public long BlockLimit => Direct + _perBlock + (_perBlock * _perBlock) + (_perBlock * _perBlock * _perBlock);

    public async ValueTask<BlockRun> FindAsync(long block, long count, CancellationToken cancellationToken)
    {
        if (block < Direct)
        {
            return Run(_inode.Map.Span[..(Direct * sizeof(uint))], (int)block, count);
        }
        long index = block - Direct;
        // The number of blocks below one pointer, from the inode downwards.
        long below = _perBlock;
        int level = 1;
        for (; level < Levels && index >= below; level++)
        {
            index -= below;
            below *= _perBlock;
        }
        long pointer = _inode.Map.Span.U32((Direct + level - 1) * sizeof(uint));
        while (pointer != 0)
        {
            MetadataBlock pointers = await _volume.ReadBlockAsync(pointer, cancellationToken).ConfigureAwait(false);
            below /= _perBlock;
            int at = (int)(index / below);
            if (below == 1)
            {
                return Run(pointers.Data, at, count);
            }
            index %= below;
            pointer = ((ReadOnlySpan<byte>)pointers.Data).U32(at * sizeof(uint));
        }
        return new BlockRun(Math.Min(count, below - index), 0);
    }

    private BlockRun Run(ReadOnlySpan<byte> pointers, int at, long count)
    {
        long start = pointers.U32(at * sizeof(uint));
        int limit = (int)Math.Min(count, (pointers.Length / sizeof(uint)) - at);
        int found = 1;
        while (found < limit && pointers.U32((at + found) * sizeof(uint)) == (start == 0 ? 0 : start + found))
        {
            found++;
        }
        if (start != 0 && !_volume.Superblock.Contains(start, found))
        {
            throw Fault.Damaged($"inode {_inode.Number} has {found} blocks at {start}, outside the file system");
        }
        return new BlockRun(found, start);
    }
}
