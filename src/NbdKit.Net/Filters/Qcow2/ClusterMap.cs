using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>Finds out where the clusters of a disk are, in its L1 table and the L2 tables that this one points to.</summary>
/// <remarks>
/// An entry of the L1 table has in bits 9 to 55 the offset of an L2 table, which has the size of a cluster; 0 means that none of
/// its clusters is allocated. An entry of an L2 table has bit 62 set if its cluster is compressed. If not, bits 9 to 55 are the
/// offset of the cluster, 0 if it has none, and bit 0 says that it reads as zeroes (version 3). With an external data file, offset
/// 0 is a place if bit 63 is set. With subclusters, entries have 8 more bytes: bits 0 to 31 say which of the 32 parts are
/// allocated, bits 32 to 63 which read as zeroes.
/// </remarks>
internal sealed class ClusterMap
{
    private const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00;
    private const ulong IsCompressed = 1ul << 62;
    private const ulong IsCopied = 1ul << 63;
    private const ulong ReadsAsZeroes = 1;
    private const int SubclusterBits = 5;

    private readonly Header _header;
    private readonly TablePages _tables;
    private readonly long _l1;
    private readonly long _l1Count;
    private readonly long _imageSize;
    private readonly long _dataSize;
    private readonly int _entrySize;
    private readonly int _tableBits;

    /// <param name="header">The header of the image.</param>
    /// <param name="l1">The table to begin with.</param>
    /// <param name="size">The size of the disk.</param>
    /// <param name="tables">Reads tables.</param>
    /// <param name="imageSize">The size of the file that the tables are in.</param>
    /// <param name="dataSize">The size of the file that clusters are in.</param>
    public ClusterMap(Header header, L1Table l1, long size, TablePages tables, long imageSize, long dataSize)
    {
        _header = header;
        _tables = tables;
        _imageSize = imageSize;
        _dataSize = dataSize;
        _entrySize = header.HasSubclusters ? 16 : 8;
        _tableBits = header.ClusterBits - BitOperations.Log2((uint)_entrySize);
        l1.Check(size, ReachBits, header.ClusterSize, imageSize);
        _l1 = (long)l1.Offset;
        _l1Count = size == 0 ? 0 : ((size - 1) >> ReachBits) + 1;
    }

    private int ReachBits => _tableBits + _header.ClusterBits;

    /// <summary>Finds the run that a range of the disk begins with, no longer than the range.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<ClusterRun> FindAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long index = offset >> ReachBits;
        long at = _l1 + (index * 8);
        byte[] page = await _tables.GetAsync(at, cancellationToken).ConfigureAwait(false);
        ulong table = Entry(page, at) & OffsetMask;
        if (table == 0)
        {
            // An L1 table may have millions of entries for nothing at all.
            long most = Math.Min(_l1Count - index, (_tables.PageSize - (at % _tables.PageSize)) / 8);
            long count = 1;
            while (count < most && (Entry(page, at + (count * 8)) & OffsetMask) == 0)
            {
                count++;
            }
            // The last one may reach beyond 2^63 bytes.
            UInt128 end = ((UInt128)(index + count) << ReachBits) - (ulong)offset;
            return new ClusterRun(ClusterKind.Unallocated, end > (ulong)length ? length : (long)end, 0);
        }
        if (table % (uint)_header.ClusterSize != 0 || table > (ulong)_imageSize || _header.ClusterSize > _imageSize - (long)table)
        {
            throw Fault.Damaged($"an L2 table at {table}, in an image of {_imageSize} bytes");
        }
        long cluster = (offset >> _header.ClusterBits) & ((1L << _tableBits) - 1);
        at = (long)table + (cluster * _entrySize);
        page = await _tables.GetAsync(at, cancellationToken).ConfigureAwait(false);
        long left = Math.Min((1L << _tableBits) - cluster, (_tables.PageSize - (at % _tables.PageSize)) / _entrySize);
        return Walk(page, at, left, offset, length);
    }

    /// <summary>Where a compressed cluster is, and how much there is to decompress at most.</summary>
    /// <remarks>
    /// The lower bits are the offset, the others count the sectors of 512 bytes that follow the one in which it begins.
    /// </remarks>
    public (long Offset, int Length) Compressed(long place)
    {
        int offsetBits = 62 - (_header.ClusterBits - 8);
        long offset = place & ((1L << offsetBits) - 1);
        long sectors = (place >> offsetBits) + 1;
        long length = Math.Min((sectors * 512) - (offset % 512), _imageSize - offset);
        return length > 0
            ? (offset, (int)length)
            : throw Fault.Damaged($"a compressed cluster at {offset}, in an image of {_imageSize} bytes");
    }

    /// <summary>Puts as many entries of a page as possible together.</summary>
    private ClusterRun Walk(byte[] page, long at, long left, long offset, long length)
    {
        ClusterRun run = Decode(page, at, offset);
        while (run.Length < length && --left > 0)
        {
            at += _entrySize;
            long next = offset + run.Length;
            if ((next & (_header.ClusterSize - 1)) != 0)
            {
                // It ended inside its cluster.
                break;
            }
            ClusterRun more = Decode(page, at, next);
            if (!run.IsContinuedBy(more))
            {
                break;
            }
            run = run with { Length = run.Length + more.Length };
        }
        return run.Length > length ? run with { Length = length } : run;
    }

    /// <summary>What one entry says about an offset and what follows it in the same cluster.</summary>
    private ClusterRun Decode(byte[] page, long at, long offset)
    {
        ulong entry = Entry(page, at);
        long inside = offset & (_header.ClusterSize - 1);
        long rest = _header.ClusterSize - inside;
        if ((entry & IsCompressed) != 0)
        {
            return _header.HasDataFile
                ? throw Fault.Damaged("a compressed cluster, although it has an external data file")
                : new ClusterRun(ClusterKind.Compressed, rest, (long)(entry & (IsCompressed - 1)));
        }
        ulong place = entry & OffsetMask;
        bool isAllocated = place != 0 || (_header.HasDataFile && (entry & IsCopied) != 0);
        if (_header.HasSubclusters)
        {
            return DecodeParts(Entry(page, at + 8), isAllocated, place, offset);
        }
        if (_header.HasZeroFlag && (entry & ReadsAsZeroes) != 0)
        {
            return new ClusterRun(isAllocated ? ClusterKind.ReservedZero : ClusterKind.Zero, rest, 0);
        }
        return isAllocated
            ? new ClusterRun(ClusterKind.Data, rest, DataPlace(place) + inside)
            : new ClusterRun(ClusterKind.Unallocated, rest, 0);
    }

    private ClusterRun DecodeParts(ulong bitmap, bool isAllocated, ulong place, long offset)
    {
        int partBits = _header.ClusterBits - SubclusterBits;
        uint allocated = (uint)bitmap;
        uint zero = (uint)(bitmap >> 32);
        if ((allocated & zero) != 0 || (allocated != 0 && !isAllocated))
        {
            throw Fault.Damaged($"subclusters that contradict themselves ({bitmap:x16}) at {offset} of the disk");
        }
        long inside = offset & (_header.ClusterSize - 1);
        int part = (int)(inside >> partBits);
        // The bits of this part and of those after it that are like it.
        bool isData = ((allocated >> part) & 1) != 0;
        bool isZero = ((zero >> part) & 1) != 0;
        uint others = (isData ? ~allocated : isZero ? ~zero : allocated | zero) >> part;
        int count = Math.Min(BitOperations.TrailingZeroCount(others), (1 << SubclusterBits) - part);
        long rest = ((long)(part + count) << partBits) - inside;
        return isData ? new ClusterRun(ClusterKind.Data, rest, DataPlace(place) + inside)
            : isZero ? new ClusterRun(isAllocated ? ClusterKind.ReservedZero : ClusterKind.Zero, rest, 0)
            : new ClusterRun(ClusterKind.Unallocated, rest, 0);
    }

    private long DataPlace(ulong place)
        => place % (uint)_header.ClusterSize == 0 && place < (ulong)_dataSize
            ? (long)place
            : throw Fault.Damaged($"a cluster at {place}, in a file of {_dataSize} bytes");

    private ulong Entry(byte[] page, long at)
        => BinaryPrimitives.ReadUInt64BigEndian(page.AsSpan((int)(at % _tables.PageSize)));
}
