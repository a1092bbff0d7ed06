using System.Buffers.Binary;

namespace NbdKit.Plugins.Fat;

/// <summary>
/// The disk but for the content of files: what lies where, and the bytes of all else. Items lie one after the other without gaps,
/// so the allocation tables follow from where items begin. Does not change, so any number may use it at once.
/// </summary>
internal sealed class FatImage
{
    private const int FirstCluster = 2;
    private const uint EndOfChain = 0x0fffffff;
    private const uint MediaEntry = 0x0ffffff8;

    private readonly FatLayout _layout;
    private readonly byte[] _table;
    private readonly byte[] _boot;

    // What takes clusters, in their order, and the first cluster that nothing takes.
    private readonly FatNode[] _items;
    private readonly uint _free;

    /// <summary>Places what a tree holds.</summary>
    /// <param name="nodes">The files and directories, the root first.</param>
    /// <param name="label">The label as stored.</param>
    /// <param name="size">The size of the disk, or null for the least.</param>
    /// <exception cref="NbdException">It does not fit.</exception>
    public FatImage(IReadOnlyList<FatNode> nodes, byte[] label, long? size)
    {
        _layout = FatLayout.For(nodes, size);
        Size = size ?? _layout.Size;
        _free = FirstCluster;
        _items = [.. nodes.Where(node => node.Size > 0)];
        foreach (FatNode item in _items)
        {
            item.FirstCluster = _free;
            item.Clusters = _layout.ClustersOf(item.Size);
            _free += item.Clusters;
        }
        uint serial = 2_166_136_261;
        foreach (FatNode directory in _items.Where(item => item.Children is not null))
        {
            directory.Bytes = FatDirectory.Encode(directory, label);
            foreach (byte b in directory.Bytes)
            {
                serial = (serial ^ b) * 16_777_619;
            }
        }
        _table = FatBoot.PartitionTable(_layout, serial);
        _boot = FatBoot.Sectors(_layout, label, serial, _layout.Clusters - (_free - FirstCluster), _free);
    }

    public long Size { get; }

    /// <summary>What an offset below <see cref="Size"/> lies in.</summary>
    public FatRun RunAt(long offset)
    {
        const long BootStart = FatLayout.PartitionStart * FatLayout.SectorSize;
        if (offset < FatLayout.SectorSize)
        {
            return new FatRun(0, FatLayout.SectorSize, _table);
        }
        if (offset < BootStart)
        {
            return new FatRun(FatLayout.SectorSize, BootStart);
        }
        if (offset < _layout.TableStart)
        {
            return new FatRun(BootStart, _layout.TableStart, _boot);
        }
        if (offset < _layout.DataStart)
        {
            long start = _layout.TableStart + ((offset - _layout.TableStart) / _layout.TableSize * _layout.TableSize);
            long used = start + (_free * 4L);
            return offset < used ? new FatRun(start, used, IsTable: true) : new FatRun(used, start + _layout.TableSize);
        }
        long cluster = FirstCluster + ((offset - _layout.DataStart) / _layout.ClusterSize);
        if (cluster >= _free)
        {
            return new FatRun(OffsetOf(_free), Size);
        }
        FatNode item = _items[IndexOf((uint)cluster)];
        long begin = OffsetOf(item.FirstCluster);
        long end = begin + item.Size;
        return offset < end
            ? new FatRun(begin, end, item.Bytes, item.Children is null ? item : null)
            : new FatRun(end, OffsetOf(item.FirstCluster + item.Clusters));
    }

    /// <summary>Fills a buffer from a part that is no file.</summary>
    /// <param name="run">The part.</param>
    /// <param name="buffer">Where to.</param>
    /// <param name="offset">From which byte of the part; the whole buffer lies in it.</param>
    public void Fill(in FatRun run, Span<byte> buffer, long offset)
    {
        if (run.Bytes is { } bytes)
        {
            bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer);
        }
        else if (run.IsTable)
        {
            FillTable(buffer, offset);
        }
        else
        {
            buffer.Clear();
        }
    }

    private void FillTable(Span<byte> buffer, long offset)
    {
        uint cluster = (uint)(offset / 4);
        int skipped = (int)(offset % 4);
        int index = cluster < FirstCluster ? 0 : IndexOf(cluster);
        Span<byte> entry = stackalloc byte[4];
        while (!buffer.IsEmpty)
        {
            uint value = cluster == 0 ? MediaEntry : EndOfChain;
            if (cluster >= FirstCluster)
            {
                FatNode item = _items[index];
                bool isLast = cluster == item.FirstCluster + item.Clusters - 1;
                value = isLast ? EndOfChain : cluster + 1;
                index += isLast ? 1 : 0;
            }
            BinaryPrimitives.WriteUInt32LittleEndian(entry, value);
            int count = Math.Min(4 - skipped, buffer.Length);
            entry.Slice(skipped, count).CopyTo(buffer);
            buffer = buffer[count..];
            skipped = 0;
            cluster++;
        }
    }

    private long OffsetOf(uint cluster) => _layout.DataStart + ((long)(cluster - FirstCluster) * _layout.ClusterSize);

    /// <summary>The item that holds a cluster: the last one that begins there or before.</summary>
    private int IndexOf(uint cluster)
    {
        int low = 0;
        int high = _items.Length - 1;
        while (low < high)
        {
            int middle = (low + high + 1) >>> 1;
            (low, high) = _items[middle].FirstCluster <= cluster ? (middle, high) : (low, middle - 1);
        }
        return low;
    }
}
