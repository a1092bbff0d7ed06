using System.Buffers.Binary;
using NbdKit.Layers;

namespace NbdKit.Filters.Ext2;

/// <summary>A file system on a disk: its blocks and inodes. Safe for use by several threads.</summary>
/// <remarks>
/// A group descriptor has at byte 08h the block of its table of inodes (32), at 12h flags (16), at 1Eh its checksum (16)
/// and, if it has 64 bytes, at 28h the upper half of that block.
/// </remarks>
internal sealed class Volume
{
    private const int DescriptorChecksum = 0x1E;
    private const ushort InodesUninitialized = 1;

    private readonly MetadataCache _cache;

    private Volume(Superblock superblock, ImageDisk disk)
    {
        Superblock = superblock;
        Disk = disk;
        _cache = new MetadataCache(disk, superblock.BlockSize);
    }

    public Superblock Superblock { get; }

    public ImageDisk Disk { get; }

    /// <summary>Reads the superblock.</summary>
    public static async ValueTask<Volume> MountAsync(NextContext next, CancellationToken cancellationToken)
    {
        var disk = new ImageDisk(next);
        byte[] raw = new byte[1024];
        if (disk.Size < Superblock.Position + raw.Length)
        {
            throw Fault.Refused($"a disk of {disk.Size} bytes is too small for a file system");
        }
        await disk.ReadAsync(raw, Superblock.Position, cancellationToken).ConfigureAwait(false);
        return new Volume(Superblock.Read(raw, disk.Size), disk);
    }

    /// <summary>Reads a block of metadata.</summary>
    public ValueTask<MetadataBlock> ReadBlockAsync(long number, CancellationToken cancellationToken)
        => Superblock.Contains(number, 1)
            ? _cache.ReadAsync(number, cancellationToken)
            : throw Fault.Damaged($"metadata in block {number}, outside the file system");

    /// <summary>Reads an inode that an entry of a directory names, or the root directory.</summary>
    public async ValueTask<Inode> ReadInodeAsync(uint number, CancellationToken cancellationToken)
    {
        uint group = number == 0 ? 0 : (number - 1) / Superblock.InodesPerGroup;
        if (number == 0 || number > Superblock.InodeCount || group >= Superblock.GroupCount
            || (number < Superblock.FirstFreeInode && number != Inode.Root))
        {
            throw Fault.Damaged($"an entry of a directory names inode {number} of {Superblock.InodeCount}");
        }
        long table = await FindInodeTableAsync(group, cancellationToken).ConfigureAwait(false);
        long position = (long)((number - 1) % Superblock.InodesPerGroup) * Superblock.InodeSize;
        MetadataBlock block = await ReadBlockAsync(table + (position / Superblock.BlockSize), cancellationToken)
            .ConfigureAwait(false);
        ReadOnlySpan<byte> raw = block.Data.AsSpan((int)(position % Superblock.BlockSize), Superblock.InodeSize);
        return Inode.Read(raw, number, Superblock);
    }

    /// <summary>Where the blocks of an inode are.</summary>
    public IFileMap MapOf(Inode inode)
    {
        IFileMap map = inode.HasExtents ? new ExtentTree(this, inode) : new IndirectBlocks(this, inode);
        return (inode.Size - 1) / Superblock.BlockSize < map.BlockLimit
            ? map
            : throw Fault.Damaged($"inode {inode.Number} has {inode.Size} bytes, more than its map can hold");
    }

    private async ValueTask<long> FindInodeTableAsync(uint group, CancellationToken cancellationToken)
    {
        uint perBlock = (uint)(Superblock.BlockSize / Superblock.DescriptorSize);
        MetadataBlock block = await ReadBlockAsync(Superblock.DescriptorBlock(group / perBlock), cancellationToken)
            .ConfigureAwait(false);
        ReadOnlySpan<byte> descriptor = block.Data.AsSpan(
            (int)(group % perBlock) * Superblock.DescriptorSize, Superblock.DescriptorSize);
        if (DescriptorChecksumOf(descriptor, group) is { } expected && expected != descriptor.U16(DescriptorChecksum))
        {
            throw Fault.Damaged($"the descriptor of group {group} has the wrong checksum");
        }
        if ((Superblock.HasMetadataChecksums || Superblock.HasGroupChecksums)
            && (descriptor.U16(0x12) & InodesUninitialized) != 0)
        {
            throw Fault.Damaged($"a directory has an entry for an inode of group {group}, none of which was ever used");
        }
        ulong table = descriptor.Length >= 64 ? descriptor.Split(0x08, 0x28) : descriptor.U32(0x08);
        return table < (ulong)Superblock.BlockCount
            ? (long)table
            : throw Fault.Damaged($"the inodes of group {group} are in block {table}, outside the file system");
    }

    private ushort? DescriptorChecksumOf(ReadOnlySpan<byte> descriptor, uint group)
    {
        const int After = DescriptorChecksum + sizeof(ushort);
        if (Superblock.HasMetadataChecksums)
        {
            uint crc = Checksum.Crc32C(Superblock.ChecksumSeed, group);
            crc = Checksum.Crc32C(crc, descriptor[..DescriptorChecksum]);
            crc = Checksum.Crc32COfZeroes(crc, sizeof(ushort));
            return (ushort)Checksum.Crc32C(crc, descriptor[After..]);
        }
        if (!Superblock.HasGroupChecksums)
        {
            return null;
        }
        Span<byte> number = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(number, group);
        ushort crc16 = Checksum.Crc16(Checksum.Start, Superblock.Uuid);
        crc16 = Checksum.Crc16(crc16, number);
        crc16 = Checksum.Crc16(crc16, descriptor[..DescriptorChecksum]);
        return Checksum.Crc16(crc16, descriptor[After..]);
    }
}
