using System.Buffers.Binary;

namespace NbdKit.Plugins.Images;

/// <summary>
/// One entry of a log ("VHDX Format Specification", 2.3.1), of whole sectors of 4 KiB, all little endian:
/// <code>
///  0 "loge"  4 checksum  8 length (4)  12 position of the oldest entry that matters (4)  16 sequence (8)
/// 24 number of descriptors (4)  32 GUID of the log (16)  48 flushed size of the file (8)  56 size of the file (8)
/// 64 descriptors of 32: "zero", 8 length (8), 16 offset in the file (8), 24 sequence (8)
///                   or: "desc", 4 last bytes (4), 8 first bytes (8), 16 offset in the file (8), 24 sequence (8)
/// from the next sector on, for each "desc": "data", 4 upper half of the sequence (4), bytes (4084), lower half (4)
/// </code>
/// </summary>
/// <param name="At">Where it is in the log.</param>
/// <param name="Length">Its length.</param>
/// <param name="Tail">Where the oldest entry is that matters when this is the newest one.</param>
/// <param name="Sequence">Its number.</param>
/// <param name="FlushedSize">What the file was at least, on the disk, when the entry was written.</param>
/// <param name="FileSize">What the file has to be at least.</param>
/// <param name="Changes">What it changes.</param>
internal sealed record VhdxLogEntry(
    int At, int Length, long Tail, ulong Sequence, long FlushedSize, long FileSize, IReadOnlyList<VhdxChange> Changes)
{
    public const int Sector = 4096;

    private const int DescriptorsAt = 64;
    private const int DescriptorSize = 32;

    /// <summary>The length that an entry says it has, if it may be one.</summary>
    public static bool TryGetLength(ReadOnlySpan<byte> start, Guid log, out uint length)
    {
        length = BinaryPrimitives.ReadUInt32LittleEndian(start[8..]);
        return start.StartsWith("loge"u8) && length > 0 && length % Sector == 0 && new Guid(start.Slice(32, 16)) == log;
    }

    /// <summary>Reads an entry; null if it is not whole, or says what cannot be.</summary>
    /// <param name="at">Where it is in the log.</param>
    /// <param name="bytes">All of it.</param>
    public static VhdxLogEntry? Parse(int at, ReadOnlySpan<byte> bytes)
    {
        ulong sequence = BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]);
        long flushed = BinaryPrimitives.ReadInt64LittleEndian(bytes[48..]);
        long size = BinaryPrimitives.ReadInt64LittleEndian(bytes[56..]);
        long data = (DescriptorsAt + ((long)count * DescriptorSize) + Sector - 1) / Sector * Sector;
        if (sequence == 0 || flushed < 0 || size < 0 || data > bytes.Length || !VhdxChecksum.IsRight(bytes))
        {
            return null;
        }
        var changes = new List<VhdxChange>();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> descriptor = bytes.Slice(DescriptorsAt + (i * DescriptorSize), DescriptorSize);
            long offset = BinaryPrimitives.ReadInt64LittleEndian(descriptor[16..]);
            bool isZero = descriptor.StartsWith("zero"u8);
            long length = isZero ? BinaryPrimitives.ReadInt64LittleEndian(descriptor[8..]) : Sector;
            if (BinaryPrimitives.ReadUInt64LittleEndian(descriptor[24..]) != sequence
                || offset < 0 || offset % Sector != 0 || length < 0 || length % Sector != 0 || length > long.MaxValue - offset)
            {
                return null;
            }
            if (isZero)
            {
                changes.Add(new VhdxChange(offset, offset + length, null));
            }
            else if (descriptor.StartsWith("desc"u8) && data + Sector <= bytes.Length
                && SectorOf(bytes.Slice((int)data, Sector), descriptor, sequence) is { } sector)
            {
                changes.Add(new VhdxChange(offset, offset + Sector, sector));
                data += Sector;
            }
            else
            {
                return null;
            }
        }
        return new VhdxLogEntry(
            at, bytes.Length, BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]), sequence, flushed, size, changes);
    }

    /// <summary>A sector: what stands in the place of the signature and the sequence is in the descriptor.</summary>
    private static byte[]? SectorOf(ReadOnlySpan<byte> data, ReadOnlySpan<byte> descriptor, ulong sequence)
    {
        if (!data.StartsWith("data"u8)
            || BinaryPrimitives.ReadUInt32LittleEndian(data[4..]) != (uint)(sequence >> 32)
            || BinaryPrimitives.ReadUInt32LittleEndian(data[(Sector - 4)..]) != (uint)sequence)
        {
            return null;
        }
        byte[] sector = data.ToArray();
        descriptor.Slice(8, 8).CopyTo(sector);
        descriptor.Slice(4, 4).CopyTo(sector.AsSpan(Sector - 4));
        return sector;
    }
}
