namespace NbdKit.Filters.Qcow2;

/// <summary>Where the first table of a disk is, unchecked: each of its entries points to an L2 table.</summary>
/// <param name="Offset">Its first byte in the image.</param>
/// <param name="Count">The number of its entries, of 8 bytes each.</param>
internal readonly record struct L1Table(ulong Offset, uint Count)
{
    // 32 MiB, as much as QEMU takes.
    private const uint MostEntries = 4 << 20;

    /// <summary>Checks that the table is in the image, and large enough for a disk.</summary>
    /// <param name="size">The size of the disk in bytes.</param>
    /// <param name="reachBits">Each entry is for 2 to the power of this many bytes.</param>
    /// <param name="clusterSize">The table begins with a cluster.</param>
    /// <param name="imageSize">The size of the image.</param>
    public void Check(long size, int reachBits, int clusterSize, long imageSize)
    {
        long needed = size == 0 ? 0 : ((size - 1) >> reachBits) + 1;
        if (Count > MostEntries || needed > Count)
        {
            throw Fault.Damaged($"an L1 table of {Count} entries for a disk of {size} bytes, which needs {needed}");
        }
        if (needed > 0 && (Offset % (uint)clusterSize != 0 || Offset > (ulong)imageSize || needed * 8 > imageSize - (long)Offset))
        {
            throw Fault.Damaged($"an L1 table of {needed} entries at {Offset}, in an image of {imageSize} bytes");
        }
    }
}
