using System.Buffers;
using System.Buffers.Binary;
using System.IO.Compression;

namespace NbdKit.Plugins.Images;

/// <summary>
/// Decompresses grains, and keeps the last ones, at most 4 MiB. Each begins with a marker: its first sector in the extent (8
/// bytes), the size of what follows (4 bytes), and a zlib stream.
/// </summary>
internal sealed class VmdkGrains
{
    private const int MarkerSize = 12;
    private const int LargestCache = 4 << 20;

    private readonly Lock _lock = new();
    private readonly LinkedList<(VmdkExtent Extent, long Number, byte[] Bytes)> _grains = [];
    private long _cached;

    /// <summary>Fills a buffer from one grain.</summary>
    /// <param name="extent">The extent.</param>
    /// <param name="at">Where the grain is in its file.</param>
    /// <param name="offset">First byte, counted from the start of the extent.</param>
    /// <param name="buffer">The memory; it ends in the same grain.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async ValueTask ReadAsync(
        VmdkExtent extent, long at, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        long number = offset / extent.GrainSize;
        int inside = (int)(offset % extent.GrainSize);
        if (inside == 0 && buffer.Length == extent.GrainSize)
        {
            await UnpackAsync(extent, number, at, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        byte[]? grain = Find(extent, number);
        if (grain is null)
        {
            grain = new byte[Math.Min(extent.GrainSize, extent.Size - (number * extent.GrainSize))];
            await UnpackAsync(extent, number, at, grain, cancellationToken).ConfigureAwait(false);
            Keep(extent, number, grain);
        }
        grain.AsSpan(inside, buffer.Length).CopyTo(buffer.Span);
    }

    private static async ValueTask UnpackAsync(
        VmdkExtent extent, long number, long at, Memory<byte> grain, CancellationToken cancellationToken)
    {
        byte[] marker = new byte[MarkerSize];
        await extent.View.ReadAsync(at, marker, cancellationToken).ConfigureAwait(false);
        ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(marker);
        uint size = BinaryPrimitives.ReadUInt32LittleEndian(marker.AsSpan(8));
        long inExtent = number * extent.GrainSize;
        if (sector != (ulong)(inExtent / VmdkHeader.Size) && sector != (ulong)((extent.Start + inExtent) / VmdkHeader.Size))
        {
            throw Damaged(extent, inExtent, $"is marked as that of sector {sector}");
        }
        // What does not get smaller is larger by a little, never by this much.
        if (size == 0 || size > 2 * (long)extent.GrainSize)
        {
            throw Damaged(extent, inExtent, $"has {size} compressed bytes");
        }
        byte[] packed = ArrayPool<byte>.Shared.Rent((int)size);
        try
        {
            await extent.View.ReadAsync(at + MarkerSize, packed.AsMemory(0, (int)size), cancellationToken).ConfigureAwait(false);
            using var zlib = new ZLibStream(new MemoryStream(packed, 0, (int)size, writable: false), CompressionMode.Decompress);
            zlib.ReadExactly(grain.Span);
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            throw Damaged(extent, inExtent, "cannot be decompressed");
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
        }
    }

    private byte[]? Find(VmdkExtent extent, long number)
    {
        lock (_lock)
        {
            for (LinkedListNode<(VmdkExtent Extent, long Number, byte[] Bytes)>? node = _grains.First; node is not null; node = node.Next)
            {
                if (node.Value.Number == number && node.Value.Extent == extent)
                {
                    _grains.Remove(node);
                    _grains.AddFirst(node);
                    return node.Value.Bytes;
                }
            }
            return null;
        }
    }

    private void Keep(VmdkExtent extent, long number, byte[] grain)
    {
        lock (_lock)
        {
            _grains.AddFirst((extent, number, grain));
            _cached += grain.Length;
            // A whole number of the largest grains fits; small ones are few enough to be looked through.
            while (_grains.Count > 1 && (_cached > LargestCache || _grains.Count > 64))
            {
                _cached -= _grains.Last!.Value.Bytes.Length;
                _grains.RemoveLast();
            }
        }
    }

    private static NbdException Damaged(VmdkExtent extent, long inExtent, string what)
        => new(NbdError.IoError, $"the VMDK image is damaged: the grain of offset {extent.Start + inExtent} {what}");
}
