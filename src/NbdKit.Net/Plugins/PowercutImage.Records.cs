using NbdKit.Buffers;
using NbdKit.Plugins.Powercut;

namespace NbdKit.Plugins;

// What the pending records left.
public sealed partial class PowercutImage
{
    /// <summary>
    /// The ranges in which the image may differ from the chain as it is now, in blocks that the chain takes. Those that are
    /// not zeroes as a whole are no larger than a piece.
    /// </summary>
    internal IEnumerable<(JournalRange Range, bool IsZero)> Changes(int piece)
    {
        long[] borders = [.. _records.SelectMany(record => record.Ranges).SelectMany(range => (long[])[range.Start, range.End])];
        Array.Sort(borders);
        for (long at = 0; at < Size;)
        {
            BlockState state = BaseAt(at, out long to);
            BlockState? pending = PendingAt(at, borders, ref to);
            state = pending ?? state;
            if (state == BlockState.Stored)
            {
                to = Math.Min(to, at + Math.Max(_block, piece));
            }
            if (state != BlockState.Below)
            {
                yield return (new JournalRange(at, to), state == BlockState.Trimmed);
            }
            at = to;
        }
    }

    /// <summary>Where the content before the cut is, and how far that holds.</summary>
    private BlockState BaseAt(long at, out long to)
    {
        if (_isKept is null)
        {
            to = Size;
            return BlockState.Below;
        }
        BlockState state = _isKept.Run(at / _block, BlockAfter(Size), out long end);
        to = EndOf(end);
        return state;
    }

    /// <summary>
    /// What pending records left, from the begin of a block up to where the answer may be another: zeroes, something that is
    /// to be found out sector by sector, or null for nothing.
    /// </summary>
    private BlockState? PendingAt(long at, long[] borders, ref long to)
    {
        // Of all blocks from here to the next border the same records have the whole.
        int grain = Math.Max(_disk.SectorSize, _disk.Grain);
        int next = Array.BinarySearch(borders, at + 1);
        next = next < 0 ? ~next : next;
        long border = next < borders.Length ? borders[next] : Size;
        bool isWhole = border == Size || border >= at + grain;
        to = Math.Min(to, border == Size ? Size : isWhole ? border & -(long)grain : at + grain);
        to = Math.Min(to, Size);
        BlockState? found = null;
        foreach (JournalRecord record in _index.Touching(at, Math.Min(Size, at + grain)) ?? [])
        {
            long piece = record.Piece(_disk.SectorSize);
            if (!isWhole || record.Kind == JournalKind.Write || piece < grain)
            {
                return BlockState.Stored;
            }
            to = Math.Min(to, (at / piece * piece) + piece);
            if (_fate.Keeps(record, at, _disk.SectorSize, out _))
            {
                found = BlockState.Trimmed;
            }
        }
        return found;
    }

    private void Apply(Span<byte> part, long offset)
    {
        long end = offset + part.Length;
        if (_index.Touching(offset, end) is not { } touching)
        {
            return;
        }
        int sectorSize = _disk.SectorSize;
        var kept = new List<(ulong Rank, JournalRecord Record)>();
        for (long sector = offset & -(long)sectorSize; sector < end; sector += sectorSize)
        {
            kept.Clear();
            foreach (JournalRecord record in touching)
            {
                if (record.Touches(sector, sector + sectorSize)
                    && _fate.Keeps(record, sector, sectorSize, out ulong rank))
                {
                    kept.Add((rank, record));
                }
            }
            if (kept.Count == 0)
            {
                continue;
            }
            if (_fate.Reorders && kept.Count > 1)
            {
                kept.Sort((one, other) => one.Rank.CompareTo(other.Rank));
            }
            long from = Math.Max(offset, sector);
            long to = Math.Min(end, sector + sectorSize);
            Span<byte> bytes = part[(int)(from - offset)..(int)(to - offset)];
            foreach ((_, JournalRecord record) in kept)
            {
                record.Apply(bytes, from);
            }
        }
    }
}
