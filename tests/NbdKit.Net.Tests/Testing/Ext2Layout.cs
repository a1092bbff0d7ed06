using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>Writes the least there can be of a file system around one file, <c>/f</c>, whose blocks are already there.</summary>
internal static class Ext2Layout
{
    private const int InodeSize = 128;
    private const int FileInode = 12;

    /// <summary>How many bytes come before the file.</summary>
    public static int Overhead(int blockSize) => ((1024 / blockSize) + 5) * blockSize;

    /// <summary>Writes the file system, but for the content of the file, which takes the rest of the disk.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="blockSize">1,024, 2,048 or 4,096.</param>
    /// <param name="fileSize">The size of the file, which ends in the last whole block of the disk or before.</param>
    /// <param name="extents">In how many extents the file is, from 1 to 4.</param>
    public static void Write(Span<byte> disk, int blockSize, int fileSize, int extents)
    {
        int afterSuperblock = (1024 / blockSize) + 1;
        int table = afterSuperblock + 1;
        int root = table + 2;
        int first = root + 1;
        disk[..(first * blockSize)].Clear();

        Span<byte> superblock = disk.Slice(1024, 1024);
        U32(superblock, 0x00, 16);
        U32(superblock, 0x04, disk.Length / blockSize);
        U32(superblock, 0x14, blockSize == 1024 ? 1 : 0);
        U32(superblock, 0x18, int.Log2(blockSize / 1024));
        U32(superblock, 0x20, 8 * blockSize);
        U32(superblock, 0x28, 16);
        U16(superblock, 0x38, 0xEF53);
        U16(superblock, 0x3A, 1);
        U32(superblock, 0x4C, 1);
        U32(superblock, 0x54, 11);
        U16(superblock, 0x58, InodeSize);
        U32(superblock, 0x60, 0x42);
        U32(disk, (afterSuperblock * blockSize) + 8, table);

        Span<byte> inodes = disk.Slice(table * blockSize, 2 * blockSize);
        WriteInode(inodes[InodeSize..], 0x41ED, blockSize, root, 1, 1);
        int blocks = ((fileSize - 1) / blockSize) + 1;
        WriteInode(inodes[((FileInode - 1) * InodeSize)..], 0x81A4, fileSize, first, blocks, Math.Min(extents, blocks));

        Span<byte> entry = disk.Slice(root * blockSize, blockSize);
        U32(entry, 0, FileInode);
        U16(entry, 4, blockSize);
        entry[6] = 1;
        entry[7] = 1;
        entry[8] = (byte)'f';
    }

    private static void WriteInode(Span<byte> inode, int mode, int size, int start, int blocks, int extents)
    {
        U16(inode, 0x00, mode);
        U32(inode, 0x04, size);
        U16(inode, 0x1A, 1);
        U32(inode, 0x20, 0x8_0000);
        Span<byte> map = inode.Slice(0x28, 60);
        U16(map, 0, 0xF30A);
        U16(map, 2, extents);
        U16(map, 4, 4);
        int done = 0;
        for (int i = 0; i < extents; i++)
        {
            int count = (blocks - done) / (extents - i);
            U32(map, 12 + (i * 12), done);
            U16(map, 16 + (i * 12), count);
            U32(map, 20 + (i * 12), start + done);
            done += count;
        }
    }

    private static void U16(Span<byte> bytes, int at, int value) => BinaryPrimitives.WriteUInt16LittleEndian(bytes[at..], (ushort)value);

    private static void U32(Span<byte> bytes, int at, int value) => BinaryPrimitives.WriteInt32LittleEndian(bytes[at..], value);
}
