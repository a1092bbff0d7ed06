namespace NbdKit.Filters.Ext2;

/// <summary>An inode: what a file is, and where its content begins.</summary>
/// <remarks>
/// <code>
/// 00 mode (16)             20 flags (32)                       7C checksum, low half (16)
/// 04 size, low half (32)   28 map of blocks, or data (60)      80 size of what follows byte 128 (16)
/// 1A links (16)            64 generation, 6C size, high (32)   82 checksum, high half (16)
/// </code>
/// </remarks>
internal sealed class Inode
{
    /// <summary>The root directory.</summary>
    public const uint Root = 2;

    /// <summary>The bytes of every inode; larger ones have more after these.</summary>
    public const int SmallestSize = 128;

    private const int MapOffset = 0x28;
    private const int MapSize = 60;
    private const int ExtraOffset = 0x80;
    private const int ChecksumLow = 0x7C;
    private const int ChecksumHigh = 0x82;

    private const uint Immutable = 0x10;
    private const uint AppendOnly = 0x20;
    private const uint Encrypted = 0x800;
    private const uint Compressed = 0x200;
    private const uint Indexed = 0x1000;
    private const uint Extents = 0x8_0000;
    private const uint Verity = 0x10_0000;
    private const uint InlineData = 0x1000_0000;

    private readonly byte[] _raw;
    private readonly uint _flags;

    private Inode(ReadOnlySpan<byte> raw, uint number, Superblock superblock)
    {
        Number = number;
        _raw = raw.ToArray();
        _flags = raw.U32(0x20);
        ChecksumSeed = Checksum.Crc32C(Checksum.Crc32C(superblock.ChecksumSeed, number), raw.U32(0x64));
        if (superblock.HasMetadataChecksums && superblock.IsLinux)
        {
            CheckChecksum(raw);
        }
        if (raw.U16(0x1A) == 0)
        {
            throw Fault.Damaged($"inode {number} is in a directory but not in use");
        }
        // In other directories the upper half was something else once.
        ulong size = IsRegular || superblock.HasLargeDirectories ? raw.Split(0x04, 0x6C) : raw.U32(0x04);
        Size = size <= long.MaxValue ? (long)size : throw Fault.Damaged($"inode {number} has {size} bytes");
    }

    public uint Number { get; }

    public long Size { get; }

    /// <summary>What the checksums of the blocks of this inode begin with.</summary>
    public uint ChecksumSeed { get; }

    public bool IsRegular => Type == 8;

    public bool IsDirectory => Type == 4;

    public bool IsSymbolicLink => Type == 10;

    /// <summary>Whether the content is in the inode itself.</summary>
    public bool IsInline => (_flags & InlineData) != 0;

    /// <summary>Whether blocks are found by extents; else by indirect blocks.</summary>
    public bool HasExtents => (_flags & Extents) != 0;

    /// <summary>Whether some blocks of the directory are an index.</summary>
    public bool IsIndexed => (_flags & Indexed) != 0;

    /// <summary>Why its content cannot be read, or null.</summary>
    public string? UnreadableReason
        => (_flags & Encrypted) != 0 ? "encrypted" : (_flags & Compressed) != 0 ? "compressed" : null;

    /// <summary>Whether a flag of the file forbids to change what it holds: immutable, append-only or verity.</summary>
    public bool IsProtected => (_flags & (Immutable | AppendOnly | Verity)) != 0;

    /// <summary>The root of the map of blocks, or the first 60 bytes of inline data.</summary>
    public ReadOnlyMemory<byte> Map => _raw.AsMemory(MapOffset, MapSize);

    /// <summary>The space behind the fields of a large inode, for extended attributes.</summary>
    public ReadOnlyMemory<byte> AttributeSpace
    {
        get
        {
            if (_raw.Length == SmallestSize)
            {
                return default;
            }
            int extra = ((ReadOnlySpan<byte>)_raw).U16(ExtraOffset);
            return extra % 4 == 0 && extra <= _raw.Length - SmallestSize
                ? _raw.AsMemory(SmallestSize + extra)
                : throw Fault.Damaged($"inode {Number} has {extra} bytes of further fields");
        }
    }

    private int Type => ((ReadOnlySpan<byte>)_raw).U16(0) >> 12;

    /// <summary>Reads an inode and checks it, apart from its map.</summary>
    public static Inode Read(ReadOnlySpan<byte> raw, uint number, Superblock superblock) => new(raw, number, superblock);

    private void CheckChecksum(ReadOnlySpan<byte> raw)
    {
        bool hasHigh = raw.Length > SmallestSize && raw.U16(ExtraOffset) >= ChecksumHigh + sizeof(ushort) - SmallestSize;
        uint expected = raw.U16(ChecksumLow) | (hasHigh ? (uint)raw.U16(ChecksumHigh) << 16 : 0);
        uint crc = Checksum.Crc32C(ChecksumSeed, raw[..ChecksumLow]);
        crc = Checksum.Crc32COfZeroes(crc, sizeof(ushort));
        if (hasHigh)
        {
            crc = Checksum.Crc32C(crc, raw[(ChecksumLow + sizeof(ushort))..ChecksumHigh]);
            crc = Checksum.Crc32COfZeroes(crc, sizeof(ushort));
            crc = Checksum.Crc32C(crc, raw[(ChecksumHigh + sizeof(ushort))..]);
        }
        else
        {
            crc = Checksum.Crc32C(crc, raw[(ChecksumLow + sizeof(ushort))..]) & ushort.MaxValue;
        }
        if (crc != expected)
        {
            throw Fault.Damaged($"inode {Number} has the wrong checksum");
        }
    }
}
