using System.Numerics;

namespace NbdKit.Filters.Ext2;

/// <summary>The superblock, 1,024 bytes at byte 1,024: what the file system is and where its parts are.</summary>
/// <remarks>
/// <code>
/// 00 inodes (32)              28 inodes per group (32)    68 UUID (16 bytes)
/// 04 blocks, low half (32)    38 magic EF53h (16)         FE size of a group descriptor (16)
/// 14 first data block (32)    3A state (16)              104 first group with meta_bg (32)
/// 18 log2 of block size - 10  4C revision (32)           150 blocks, high half (32)
/// 1C log2 of cluster - 10     54 first free inode (32)   175 type of checksum (8)
/// 20 blocks per group (32)    58 size of an inode (16)   24C groups of the two copies (2 × 32)
/// 24 clusters per group (32)  5C features (3 × 32)       270 checksum seed (32)
///                                                        3FC checksum (32), all little endian
/// </code>
/// </remarks>
internal sealed class Superblock
{
    /// <summary>Where it is, and its size.</summary>
    public const int Position = 1024;

    private const ushort Magic = 0xEF53;
    private const ushort CleanState = 1;
    private const ushort ErrorState = 2;
    private const int LargestBlockLog = 6;

    private readonly uint _compatible;
    private readonly uint _incompatible;
    private readonly uint _readOnly;
    private readonly long _blocksPerGroup;
    private readonly uint _firstMetaGroup;
    private readonly (uint First, uint Second) _copies;

    private Superblock(ReadOnlySpan<byte> raw, long diskSize)
    {
        if (raw.U16(0x38) != Magic)
        {
            throw Fault.Refused("there is no ext2, ext3 or ext4 file system");
        }
        bool hasFeatures = raw.U32(0x4C) > 0;
        if (hasFeatures)
        {
            _compatible = raw.U32(0x5C);
            _incompatible = raw.U32(0x60);
            _readOnly = raw.U32(0x64);
        }
        CheckChecksum(raw);
        CheckFeatures();
        int blockLog = (int)Math.Min(raw.U32(0x18), LargestBlockLog + 1);
        BlockSize = 1024 << blockLog;
        InodeSize = hasFeatures ? raw.U16(0x58) : 128;
        DescriptorSize = Has64Bits ? raw.U16(0xFE) : 32;
        if (blockLog > LargestBlockLog
            || InodeSize < 128 || InodeSize > BlockSize || !BitOperations.IsPow2(InodeSize)
            || (Has64Bits && DescriptorSize < 64) || DescriptorSize > BlockSize || !BitOperations.IsPow2(DescriptorSize))
        {
            throw Fault.Damaged(
                $"blocks of 2^{raw.U32(0x18)} KiB, inodes of {InodeSize} bytes, group descriptors of {DescriptorSize} bytes");
        }
        ulong blocks = Has64Bits ? raw.Split(0x04, 0x150) : raw.U32(0x04);
        FirstDataBlock = raw.U32(0x14);
        _blocksPerGroup = raw.U32(0x20);
        InodesPerGroup = raw.U32(0x28);
        if (FirstDataBlock > (BlockSize == 1024 ? 1 : 0) || blocks <= (ulong)FirstDataBlock
            || _blocksPerGroup == 0 || InodesPerGroup == 0)
        {
            throw Fault.Damaged(
                $"{blocks} blocks of which {FirstDataBlock} is the first, {_blocksPerGroup} blocks and {InodesPerGroup} inodes in a group");
        }
        if (blocks > (ulong)(diskSize / BlockSize))
        {
            throw Fault.Refused(
                $"the file system has {blocks} blocks of {BlockSize} bytes but the disk only {diskSize} bytes: it is truncated");
        }
        BlockCount = (long)blocks;
        long groups = ((BlockCount - FirstDataBlock - 1) / _blocksPerGroup) + 1;
        GroupCount = groups <= uint.MaxValue ? (uint)groups : throw Fault.Damaged($"{groups} groups of blocks");
        InodeCount = raw.U32(0x00);
        FirstFreeInode = hasFeatures ? raw.U32(0x54) : 11;
        IsLinux = raw.U32(0x48) == 0;
        _firstMetaGroup = raw.U32(0x104);
        _copies = (raw.U32(0x24C), raw.U32(0x250));
        Uuid = raw.Slice(0x68, 16).ToArray();
        ChecksumSeed = (_incompatible & Features.ChecksumSeed) != 0 ? raw.U32(0x270) : Checksum.Crc32C(Checksum.Start, Uuid);
        ReadOnlyReason = FindReadOnlyReason(raw.U16(0x3A));
    }

    public int BlockSize { get; }

    /// <summary>The block of the superblock or the one before it. No data can be up to here.</summary>
    public long FirstDataBlock { get; }

    /// <summary>The number of blocks. All of them are inside the disk.</summary>
    public long BlockCount { get; }

    public uint GroupCount { get; }

    public uint InodeCount { get; }

    public uint InodesPerGroup { get; }

    public int InodeSize { get; }

    /// <summary>Inodes before this one, except for the root directory, have no names.</summary>
    public uint FirstFreeInode { get; }

    public int DescriptorSize { get; }

    public byte[] Uuid { get; }

    /// <summary>What metadata checksums begin with.</summary>
    public uint ChecksumSeed { get; }

    /// <summary>Whether the places of the inode checksum are used as Linux does.</summary>
    public bool IsLinux { get; }

    /// <summary>Why nothing may be written, or null.</summary>
    public string? ReadOnlyReason { get; }

    public bool Has64Bits => (_incompatible & Features.Bits64) != 0;

    public bool HasFileTypes => (_incompatible & Features.FileType) != 0;

    public bool HasLargeDirectories => (_incompatible & Features.LargeDirectories) != 0;

    public bool HasMetadataChecksums => (_readOnly & Features.MetadataChecksums) != 0;

    public bool HasGroupChecksums => (_readOnly & Features.GroupChecksums) != 0;

    /// <summary>Reads the superblock and checks everything in it that is relied on later.</summary>
    /// <param name="raw">Its bytes.</param>
    /// <param name="diskSize">The size of the disk in bytes.</param>
    /// <exception cref="NbdException">It is none, is damaged, or needs what this reader cannot do.</exception>
    public static Superblock Read(ReadOnlySpan<byte> raw, long diskSize) => new(raw, diskSize);

    /// <summary>Whether a place is one for data or metadata: inside the file system and after the superblock.</summary>
    public bool Contains(long block, long count)
        => block > FirstDataBlock && block < BlockCount && count <= BlockCount - block;

    /// <summary>The block that holds a part of the group descriptors; may be anywhere if the image is hostile.</summary>
    /// <param name="index">Which part, from 0.</param>
    public long DescriptorBlock(uint index)
    {
        // With blocks of 1 KiB the superblock is in block 1, else in block 0; the descriptors follow it.
        long afterSuperblock = (Position / BlockSize) + 1;
        if ((_incompatible & Features.MetaGroups) == 0 || index < _firstMetaGroup || index == 0)
        {
            return afterSuperblock + index;
        }
        long group = (long)index * (BlockSize / DescriptorSize);
        return FirstDataBlock + (group * _blocksPerGroup) + (HasSuperblock(group) ? 1 : 0);
    }

    private bool HasSuperblock(long group)
    {
        if ((_compatible & Features.SparseSuper2) != 0)
        {
            return group == 0 || group == _copies.First || group == _copies.Second;
        }
        return group <= 1 || (_readOnly & Features.SparseSuper) == 0
            || IsPower(group, 3) || IsPower(group, 5) || IsPower(group, 7);
    }

    private static bool IsPower(long value, long radix)
    {
        while (value % radix == 0)
        {
            value /= radix;
        }
        return value == 1;
    }

    private void CheckChecksum(ReadOnlySpan<byte> raw)
    {
        const int Place = 0x3FC;
        const byte Crc32C = 1;
        if (!HasMetadataChecksums)
        {
            return;
        }
        if (raw[0x175] != Crc32C)
        {
            throw Fault.Refused($"checksums of type {raw[0x175]} are not supported");
        }
        if (Checksum.Crc32C(Checksum.Start, raw[..Place]) != raw.U32(Place))
        {
            throw Fault.Damaged("the superblock has the wrong checksum");
        }
    }

    private void CheckFeatures()
    {
        if ((_incompatible & Features.JournalDevice) != 0)
        {
            throw Fault.Refused("the disk is the journal of an ext3 or ext4 file system (journal_dev), not a file system");
        }
        string unreadable = Features.Unreadable(_incompatible);
        if (unreadable.Length > 0)
        {
            throw Fault.Refused($"the file system has features that are not supported: {unreadable}");
        }
        if ((_incompatible & Features.Recover) != 0)
        {
            throw Fault.Refused(
                "the journal of the file system must be replayed first (needs_recovery): mount it once, or run e2fsck on it");
        }
    }

    private string? FindReadOnlyReason(ushort state)
    {
        string unwritable = Features.Unwritable(_readOnly);
        return unwritable.Length > 0 ? $"the file system has features that forbid writing: {unwritable}"
            : (state & ErrorState) != 0 ? "errors were found in the file system"
            : (state & CleanState) == 0 ? "the file system was not unmounted cleanly"
            : (_incompatible & Features.MultiMount) != 0 ? "the file system may be mounted elsewhere (mmp)"
            : null;
    }
}
