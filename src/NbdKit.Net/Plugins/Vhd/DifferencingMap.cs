using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins.Vhd;

/// <summary>
/// Where the sectors of a differencing disk are. The blocks are those of a dynamic disk; what has no block, and the sectors that
/// have a 0 in the bitmap of theirs, are in the parent.
/// </summary>
internal sealed class DifferencingMap(DynamicHeader header, TablePages tables, long fileSize) : IBlockMap
{
    private const int Sector = DynamicHeader.Sector;

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<BlockRun> FindAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long inside = offset % header.BlockSize;
        length = Math.Min(length, header.BlockSize - inside);
        long at = header.Table + (offset / header.BlockSize * sizeof(uint));
        byte[] page = await tables.GetAsync(at, cancellationToken).ConfigureAwait(false);
        uint entry = BinaryPrimitives.ReadUInt32BigEndian(page.AsSpan((int)(at % tables.PageSize)));
        if (entry == DynamicHeader.Unused)
        {
            return new BlockRun(false, length, offset, IsInParent: true);
        }
        long bitmap = (long)entry * Sector;
        long place = bitmap + header.BitmapSize;
        if (place >= fileSize)
        {
            throw Footer.Damaged($"a block at {place}, in a file of {fileSize} bytes");
        }
        long sector = inside / Sector;
        at = bitmap + (sector / 8);
        page = await tables.GetAsync(at, cancellationToken).ConfigureAwait(false);
        int count = CountSame(
            page.AsSpan((int)(at % tables.PageSize)), (int)(sector % 8), (inside + length - 1) / Sector - sector + 1, out bool isHere);
        length = Math.Min(length, ((sector + count) * Sector) - inside);
        return isHere
            ? new BlockRun(false, length, place + inside)
            : new BlockRun(false, length, offset, IsInParent: true);
    }

    /// <summary>How many bits, from one on and up to a limit, are the same.</summary>
    private static int CountSame(ReadOnlySpan<byte> bits, int first, long limit, out bool isSet)
    {
        isSet = (bits[0] >> (7 - first) & 1) != 0;
        int most = (int)Math.Min(limit, (bits.Length * 8L) - first);
        int whole = isSet ? 0xFF : 0;
        int count = 1;
        while (count < most)
        {
            int bit = first + count;
            byte here = bits[bit / 8];
            if (bit % 8 == 0 && here == whole)
            {
                count += 8;
            }
            else if ((here >> (7 - (bit % 8)) & 1) != 0 == isSet)
            {
                count++;
            }
            else
            {
                break;
            }
        }
        return Math.Min(count, most);
    }
}
