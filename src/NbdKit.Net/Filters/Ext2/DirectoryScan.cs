using System.Buffers;

namespace NbdKit.Filters.Ext2;

/// <summary>
/// Looks up names in directories, from the first entry to the last. The index that a large directory may have is made so
/// that this works too: its blocks look like entries that are not in use.
/// </summary>
/// <remarks>
/// <code>
/// entry: 0 inode (32), 0 if not in use; 4 length of the entry (16); 6 length of the name (8); 7 type (8), or the upper
///        half of the length of the name; 8 name
/// tail:  with metadata checksums, an entry of 12 bytes for inode 0 and of type DEh that ends the block, with the
///        checksum of what is before it in place of a name
/// index: after the entries "." and ".." of the first block and 8 bytes about itself, or after one entry that fills any
///        other: 0 room (16), 2 count (16), and as many entries of 8 bytes, the first of which is this one; the checksum
///        is behind the room, in the second half of 8 bytes
/// </code>
/// </remarks>
internal sealed class DirectoryScan
{
    // 128 MiB hold some four million names. A hostile directory may be as large as the disk, or larger.
    private const long LargestScan = 128 << 20;
    private const int ReadSize = 64 << 10;
    private const int SmallestEntry = 8;
    private const int TailSize = 12;
    private const byte TailType = 0xDE;

    private readonly Volume _volume;
    private long _scanned;

    public DirectoryScan(Volume volume) => _volume = volume;

    /// <summary>Finds the inode of a name, or 0. All calls on one instance share one limit.</summary>
    public async ValueTask<uint> FindAsync(
        Inode directory, ReadOnlyMemory<byte> name, CancellationToken cancellationToken)
    {
        if (directory.IsInline)
        {
            (ReadOnlyMemory<byte> first, ReadOnlyMemory<byte> rest) = InlineData.Read(directory);
            // The first four bytes are the parent; there are no entries "." and "..".
            uint inode = FindEntry(first.Span[sizeof(uint)..], name.Span, directory);
            return inode != 0 ? inode : FindEntry(rest.Span, name.Span, directory);
        }
        int blockSize = _volume.Superblock.BlockSize;
        if (directory.Size == 0 || directory.Size % blockSize != 0)
        {
            throw Damaged(directory, $"is {directory.Size} bytes long");
        }
        IFileMap map = _volume.MapOf(directory);
        long blocks = directory.Size / blockSize;
        byte[] rented = ArrayPool<byte>.Shared.Rent(Math.Max(ReadSize, blockSize));
        try
        {
            int most = Math.Max(ReadSize, blockSize) / blockSize;
            for (long block = 0; block < blocks;)
            {
                BlockRun run = await map.FindAsync(block, Math.Min(most, blocks - block), cancellationToken)
                    .ConfigureAwait(false);
                if (!run.IsWritten)
                {
                    throw Damaged(directory, "has a hole");
                }
                Memory<byte> buffer = rented.AsMemory(0, (int)run.Count * blockSize);
                Count(buffer.Length);
                await _volume.Disk.ReadAsync(buffer, run.Start * blockSize, cancellationToken).ConfigureAwait(false);
                for (int i = 0; i < run.Count; i++, block++)
                {
                    ReadOnlySpan<byte> bytes = buffer.Span.Slice(i * blockSize, blockSize);
                    CheckChecksum(bytes, directory);
                    if (FindEntry(bytes, name.Span, directory) is not 0 and uint inode)
                    {
                        return inode;
                    }
                }
            }
            return 0;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private void Count(int bytes)
    {
        _scanned += bytes;
        if (_scanned > LargestScan)
        {
            throw Fault.Refused($"the directories on the way to the file are larger than {LargestScan >> 20} MiB");
        }
    }

    private uint FindEntry(ReadOnlySpan<byte> block, ReadOnlySpan<byte> name, Inode directory)
    {
        for (int at = 0; at < block.Length;)
        {
            if (block.Length - at < SmallestEntry)
            {
                throw Damaged(directory, "has an entry that is cut off");
            }
            int length = EntryLength(block.U16(at + 4), block.Length);
            int nameLength = _volume.Superblock.HasFileTypes ? block[at + 6] : block.U16(at + 6);
            if (length < SmallestEntry || length % 4 != 0 || length > block.Length - at
                || nameLength > length - SmallestEntry)
            {
                throw Damaged(directory, "has an entry that does not fit");
            }
            uint inode = block.U32(at);
            if (inode != 0 && block.Slice(at + SmallestEntry, nameLength).SequenceEqual(name))
            {
                return inode;
            }
            at += length;
        }
        return 0;
    }

    // 64 KiB do not fit into 16 bits; the lowest two are free to help.
    private static int EntryLength(ushort stored, int blockSize)
        => blockSize < 1 << 16 ? stored
            : stored is 0 or ushort.MaxValue ? blockSize
            : (stored & 0xFFFC) | ((stored & 3) << 16);

    private void CheckChecksum(ReadOnlySpan<byte> block, Inode directory)
    {
        if (!_volume.Superblock.HasMetadataChecksums)
        {
            return;
        }
        uint crc;
        uint expected;
        ReadOnlySpan<byte> tail = block[^TailSize..];
        if (directory.IsIndexed && IndexOffset(block) is > 0 and int index)
        {
            int room = block.U16(index);
            int count = block.U16(index + 2);
            int place = index + (room * 8);
            if (count > room || place > block.Length - 8)
            {
                throw Damaged(directory, "has an index that does not fit");
            }
            crc = Checksum.Crc32C(directory.ChecksumSeed, block[..(index + (count * 8))]);
            crc = Checksum.Crc32COfZeroes(Checksum.Crc32C(crc, block.Slice(place, 4)), sizeof(uint));
            expected = block.U32(place + 4);
        }
        else if (tail.U32(0) == 0 && tail.U16(4) == TailSize && tail[6] == 0 && tail[7] == TailType)
        {
            crc = Checksum.Crc32C(directory.ChecksumSeed, block[..^TailSize]);
            expected = tail.U32(8);
        }
        else
        {
            throw Damaged(directory, "has a block without a checksum");
        }
        if (crc != expected)
        {
            throw Damaged(directory, "has a block with the wrong checksum");
        }
    }

    /// <summary>Where the index in a block begins, or 0 if the block has entries.</summary>
    private static int IndexOffset(ReadOnlySpan<byte> block)
    {
        int first = EntryLength(block.U16(4), block.Length);
        bool isRoot = first == 12 && EntryLength(block.U16(16), block.Length) == block.Length - 12
            && block.U32(24) == 0 && block[29] == 8;
        return first == block.Length ? 8 : isRoot ? 32 : 0;
    }

    private static NbdException Damaged(Inode directory, string what)
        => Fault.Damaged($"the directory with inode {directory.Number} {what}");
}
