using System.Buffers;

namespace NbdKit.Filters.Partition;

/// <summary>Reads sectors of a disk, within the request sizes that the layer below takes.</summary>
internal sealed class SectorReader
{
    private const int LargestRead = 64 << 10;

    private readonly NextContext _next;

    public SectorReader(NextContext next, int size)
    {
        _next = next;
        Size = size;
        Count = next.Info.Size / size;
    }

    /// <summary>Bytes in a sector.</summary>
    public int Size { get; }

    /// <summary>Number of whole sectors on the disk.</summary>
    public long Count { get; }

    /// <summary>Fills a buffer of any length; the caller has checked that it ends inside the disk.</summary>
    public async ValueTask ReadAsync(long sector, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        BlockSize limits = _next.Info.BlockSize;
        long block = Math.Max(limits.Minimum, 1);
        long largest = Math.Max(limits.Maximum > 0 ? Math.Min(limits.Maximum, LargestRead) : LargestRead, block);
        largest -= largest % block;
        long offset = sector * Size;
        byte[] rented = ArrayPool<byte>.Shared.Rent((int)largest);
        try
        {
            while (!buffer.IsEmpty)
            {
                // Whole blocks around what is wanted, except that the disk may end with a part of one.
                long start = offset - (offset % block);
                long end = Math.Min(start + largest, _next.Info.Size);
                int count = (int)Math.Min(buffer.Length, end - offset);
                long wanted = offset + count - start;
                long rounded = Math.Min((wanted + block - 1) / block * block, end - start);
                Memory<byte> blocks = rented.AsMemory(0, (int)rounded);
                await _next.ReadAsync(blocks, start, cancellationToken).ConfigureAwait(false);
                blocks.Slice((int)(offset - start), count).CopyTo(buffer);
                buffer = buffer[count..];
                offset += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }
}
