namespace NbdKit.Filters.Ext2;

/// <summary>The map of a file that has extents: a tree of nodes, the root of which is in the inode.</summary>
/// <remarks>
/// <code>
/// header: 0 magic F30Ah (16), 2 entries (16), 4 room for entries (16), 6 depth (16), 8 generation (32)
/// extent: 0 first block of the file (32), 4 length (16), 6 place, high part (16), 8 place (32)
/// index:  0 first block of the file (32), 4 place of the node below (32), 8 its high part (16)
/// </code>
/// An extent longer than 32,768 was reserved but not written, and is 32,768 shorter than it says. A node that is a block
/// has its checksum behind the room for entries.
/// </remarks>
internal sealed class ExtentTree : IFileMap
{
    private const ushort Magic = 0xF30A;
    private const int EntrySize = 12;
    private const int LargestDepth = 5;
    private const int LargestLength = 32_768;
    private const long Limit = 1L << 32;

    private readonly Volume _volume;
    private readonly Inode _inode;
    private readonly int _depth;

    public ExtentTree(Volume volume, Inode inode)
    {
        _volume = volume;
        _inode = inode;
        ReadOnlySpan<byte> root = inode.Map.Span;
        _depth = root.U16(6);
        if (_depth > LargestDepth)
        {
            throw Damaged($"is {_depth} levels deep");
        }
        CheckNode(root, _depth);
        CheckRange(root, _depth, 0, Limit);
    }

    public long BlockLimit => Limit;

    public async ValueTask<BlockRun> FindAsync(long block, long count, CancellationToken cancellationToken)
    {
        ReadOnlyMemory<byte> node = _inode.Map;
        long start = 0;
        long end = Limit;
        // The depth is checked to shrink from node to node, so that no loop can keep this from ending.
        for (int depth = _depth; depth > 0; depth--)
        {
            int index = Search(node.Span, block);
            if (index < 0)
            {
                return Hole(block, count, Key(node.Span, 0));
            }
            start = Key(node.Span, index);
            end = Math.Min(end, index + 1 < Entries(node.Span) ? Key(node.Span, index + 1) : end);
            MetadataBlock child = await _volume.ReadBlockAsync(ChildOf(node.Span, index), cancellationToken)
                .ConfigureAwait(false);
            CheckBlock(child, depth - 1, start, end);
            node = child.Data;
        }
        return FindInLeaf(node.Span, block, count, end);
    }

    private BlockRun FindInLeaf(ReadOnlySpan<byte> node, long block, long count, long end)
    {
        int index = Search(node, block);
        if (index >= 0)
        {
            ReadOnlySpan<byte> extent = Entry(node, index);
            long passed = block - Key(node, index);
            int length = Length(extent, out bool isWritten);
            if (passed < length)
            {
                long place = extent.U32(8) | ((long)extent.U16(6) << 32);
                if (!_volume.Superblock.Contains(place, length))
                {
                    throw Damaged($"has {length} blocks at {place}, outside the file system");
                }
                return new BlockRun(Math.Min(count, length - passed), isWritten ? place + passed : 0);
            }
        }
        return Hole(block, count, index + 1 < Entries(node) ? Key(node, index + 1) : end);
    }

    private static BlockRun Hole(long block, long count, long end) => new(Math.Min(count, end - block), 0);

    private void CheckBlock(MetadataBlock child, int depth, long start, long end)
    {
        ReadOnlySpan<byte> node = child.Data;
        ulong use = ((ulong)_inode.Number << 8) | (uint)(depth + 1);
        if (child.ValidFor != use)
        {
            CheckNode(node, depth);
            int place = EntrySize + (node.U16(4) * EntrySize);
            if (_volume.Superblock.HasMetadataChecksums
                && Checksum.Crc32C(_inode.ChecksumSeed, node[..place]) != node.U32(place))
            {
                throw Damaged($"has a node in block {child.Number} with the wrong checksum");
            }
            child.ValidFor = use;
        }
        // Even a node that is right in itself may be in the wrong place.
        CheckRange(node, depth, start, end);
    }

    /// <summary>Checks that a node is what it should be, that its entries are there, in order and apart.</summary>
    private void CheckNode(ReadOnlySpan<byte> node, int depth)
    {
        int entries = Entries(node);
        int room = node.U16(4);
        if (node.U16(0) != Magic || node.U16(6) != depth || entries > room || (room + 1) * EntrySize > node.Length
            || (entries == 0 && depth > 0))
        {
            throw Damaged("has a node that is none");
        }
        long next = 0;
        for (int i = 0; i < entries; i++)
        {
            long key = Key(node, i);
            int length = depth > 0 ? 1 : Length(Entry(node, i), out _);
            if (key < next || length == 0)
            {
                throw Damaged("has entries that are empty, overlap or are not in order");
            }
            next = key + length;
        }
    }

    private void CheckRange(ReadOnlySpan<byte> node, int depth, long start, long end)
    {
        int entries = Entries(node);
        if (entries == 0)
        {
            return;
        }
        int last = depth > 0 ? 1 : Length(Entry(node, entries - 1), out _);
        if (Key(node, 0) < start || Key(node, entries - 1) + last > end)
        {
            throw Damaged("has a node whose entries belong elsewhere");
        }
    }

    private static int Entries(ReadOnlySpan<byte> node) => node.U16(2);

    private static ReadOnlySpan<byte> Entry(ReadOnlySpan<byte> node, int index)
        => node.Slice((index + 1) * EntrySize, EntrySize);

    private static long Key(ReadOnlySpan<byte> node, int index) => Entry(node, index).U32(0);

    private static int Length(ReadOnlySpan<byte> extent, out bool isWritten)
    {
        int length = extent.U16(4);
        isWritten = length <= LargestLength;
        return isWritten ? length : length - LargestLength;
    }

    private static long ChildOf(ReadOnlySpan<byte> node, int index)
    {
        ReadOnlySpan<byte> entry = Entry(node, index);
        return entry.U32(4) | ((long)entry.U16(8) << 32);
    }

    /// <summary>The last entry that does not begin after a block, or -1.</summary>
    private static int Search(ReadOnlySpan<byte> node, long block)
    {
        int low = 0;
        int high = Entries(node);
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (Key(node, middle) <= block)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }
        return low - 1;
    }

    private NbdException Damaged(string what) => Fault.Damaged($"the extent tree of inode {_inode.Number} {what}");
}
