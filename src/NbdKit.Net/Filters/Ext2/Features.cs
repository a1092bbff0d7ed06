using System.Numerics;

namespace NbdKit.Filters.Ext2;

/// <summary>
/// The features that a superblock can name, with the names that mke2fs has for them: those that a reader must know
/// ("incompatible") and those that a writer must know ("read-only compatible").
/// </summary>
internal static class Features
{
    /// <summary>Compatible: exactly two groups have copies of the superblock.</summary>
    public const uint SparseSuper2 = 0x200;

    public const uint FileType = 0x2;
    public const uint Recover = 0x4;
    public const uint JournalDevice = 0x8;
    public const uint MetaGroups = 0x10;
    public const uint Bits64 = 0x80;
    public const uint MultiMount = 0x100;
    public const uint ChecksumSeed = 0x2000;
    public const uint LargeDirectories = 0x4000;

    public const uint SparseSuper = 0x1;
    public const uint GroupChecksums = 0x10;
    public const uint Bigalloc = 0x200;
    public const uint MetadataChecksums = 0x400;

    // filetype, recover and journal_dev (which have messages of their own), meta_bg, extent, 64bit, mmp, flex_bg, ea_inode,
    // metadata_csum_seed, large_dir, inline_data; encrypt and casefold, which concern single files.
    private const uint ReadableIncompatible = 0x3_E7DE;

    // sparse_super, large_file, the directories of old, huge_file, uninit_bg, dir_nlink, extra_isize, quota, bigalloc,
    // metadata_csum, project, verity. Not: snapshots, replica, read-only, shared_blocks, orphan_present.
    private const uint WritableReadOnly = 0xA77F;

    private static readonly string[] IncompatibleNames =
    [
        "compression", "filetype", "needs_recovery", "journal_dev", "meta_bg", "", "extent", "64bit", "mmp", "flex_bg",
        "ea_inode", "", "dirdata", "metadata_csum_seed", "large_dir", "inline_data", "encrypt", "casefold",
    ];

    private static readonly string[] ReadOnlyNames =
    [
        "sparse_super", "large_file", "btree_dir", "huge_file", "uninit_bg", "dir_nlink", "extra_isize", "has_snapshot",
        "quota", "bigalloc", "metadata_csum", "replica", "read-only", "project", "shared_blocks", "verity", "orphan_present",
    ];

    /// <summary>The names of those features without which the file system cannot be read, or "".</summary>
    public static string Unreadable(uint incompatible) => Names(incompatible & ~ReadableIncompatible, IncompatibleNames);

    /// <summary>The names of those features without which the file system cannot be written, or "".</summary>
    public static string Unwritable(uint readOnly) => Names(readOnly & ~WritableReadOnly, ReadOnlyNames);

    private static string Names(uint features, string[] names)
    {
        var list = new List<string>();
        for (; features != 0; features &= features - 1)
        {
            int bit = BitOperations.TrailingZeroCount(features);
            list.Add(bit < names.Length && names[bit].Length > 0 ? names[bit] : $"feature 0x{1u << bit:x}");
        }
        return string.Join(", ", list);
    }
}
