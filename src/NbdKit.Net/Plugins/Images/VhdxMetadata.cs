using System.Buffers.Binary;
using System.Numerics;

namespace NbdKit.Plugins.Images;

/// <summary>
/// What an image says of its disk ("VHDX Format Specification", 2.6). The table has 64 KiB:
/// <code>
///  0 "metadata"  10 number of entries (2)
/// 32 entries of 32: GUID (16), offset in the region (4), length (4), flags (4): 4 is required
/// </code>
/// </summary>
/// <param name="BlockSize">The size of a block.</param>
/// <param name="IsFixed">Whether all blocks are there.</param>
/// <param name="HasParent">Whether it holds the changes to another disk.</param>
/// <param name="DiskSize">The size of the disk.</param>
/// <param name="SectorSize">The size of its sectors.</param>
internal sealed record VhdxMetadata(long BlockSize, bool IsFixed, bool HasParent, long DiskSize, long SectorSize)
{
    private const int TableSize = 64 << 10;
    private const int MostEntries = 2047;
    private const int LargestItem = 1 << 20;
    private const long LargestDisk = 64L << 40;

    private static readonly Guid FileParameters = new("CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
    private static readonly Guid VirtualDiskSize = new("2FA54224-CD1B-4876-B211-5DBED83BF4B8");
    private static readonly Guid LogicalSectorSize = new("8141BF1D-A96F-4709-BA47-F233A8FAAB5F");

    private static readonly Guid ParentLocator = new("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");

    // Not needed to read the disk: its identity, and the size of physical sectors.
    private static readonly Guid[] Others =
    [
        new("BECA12AB-B2E6-4523-93EF-C309E000C746"), new("CDA348C7-445D-4471-9CC9-E9885251C556"),
    ];

    /// <summary>What it says of its parent, if it does.</summary>
    public VhdxParent? Parent { get; private init; }

    public static async ValueTask<VhdxMetadata> ReadAsync(
        MappedView view, VhdxRegions regions, CancellationToken cancellationToken)
    {
        if (regions.MetadataLength < TableSize)
        {
            throw VhdxRegions.Damaged($"its metadata have {regions.MetadataLength} bytes");
        }
        byte[] table = new byte[TableSize];
        await view.ReadAsync(regions.MetadataAt, table, cancellationToken).ConfigureAwait(false);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(table.AsSpan(10));
        if (!table.AsSpan().StartsWith("metadata"u8) || count > MostEntries)
        {
            throw VhdxRegions.Damaged("its metadata cannot be read");
        }
        byte[]? parameters = null;
        byte[]? size = null;
        byte[]? sector = null;
        byte[]? parent = null;
        for (int i = 0; i < count; i++)
        {
            ReadOnlyMemory<byte> entry = table.AsMemory(32 + (i * 32), 32);
            var id = new Guid(entry.Span[..16]);
            if (id == FileParameters)
            {
                parameters = await ItemAsync(entry, 8).ConfigureAwait(false);
            }
            else if (id == VirtualDiskSize)
            {
                size = await ItemAsync(entry, 8).ConfigureAwait(false);
            }
            else if (id == LogicalSectorSize)
            {
                sector = await ItemAsync(entry, 4).ConfigureAwait(false);
            }
            else if (id == ParentLocator)
            {
                int length = (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(entry.Span[20..]), LargestItem);
                parent = await ItemAsync(entry, Math.Max(length, VhdxParent.LeastLength)).ConfigureAwait(false);
            }
            else if ((entry.Span[24] & 4) != 0 && !Others.Contains(id))
            {
                throw new NbdException(NbdError.InvalidArgument, $"the VHDX image has the metadata item {id}, which is not known and required");
            }
        }
        return parameters is null || size is null || sector is null
            ? throw VhdxRegions.Damaged("its metadata have no size of the disk, of its blocks or of its sectors")
            : Check(parameters, size, sector) with { Parent = parent is null ? null : VhdxParent.Parse(parent) };

        async ValueTask<byte[]> ItemAsync(ReadOnlyMemory<byte> entry, int length)
        {
            long at = BinaryPrimitives.ReadUInt32LittleEndian(entry.Span[16..]);
            long given = BinaryPrimitives.ReadUInt32LittleEndian(entry.Span[20..]);
            if (given < length || given > LargestItem || at < TableSize || at + given > regions.MetadataLength)
            {
                throw VhdxRegions.Damaged($"its metadata item of {given} bytes at {at} is not inside the metadata");
            }
            byte[] item = new byte[length];
            await view.ReadAsync(regions.MetadataAt + at, item, cancellationToken).ConfigureAwait(false);
            return item;
        }
    }

    private static VhdxMetadata Check(ReadOnlySpan<byte> parameters, ReadOnlySpan<byte> size, ReadOnlySpan<byte> sector)
    {
        long blockSize = BinaryPrimitives.ReadUInt32LittleEndian(parameters);
        bool hasParent = (parameters[4] & 2) != 0;
        ulong diskSize = BinaryPrimitives.ReadUInt64LittleEndian(size);
        long sectorSize = BinaryPrimitives.ReadUInt32LittleEndian(sector);
        if (blockSize is < 1 << 20 or > 256 << 20 || !BitOperations.IsPow2(blockSize))
        {
            throw VhdxRegions.Damaged($"its blocks have {blockSize} bytes; a power of two from 1 to 256 MiB is possible");
        }
        if (sectorSize is not (512 or 4096))
        {
            throw VhdxRegions.Damaged($"its sectors have {sectorSize} bytes; 512 and 4096 are possible");
        }
        if (diskSize == 0 || diskSize > LargestDisk || diskSize % (ulong)sectorSize != 0)
        {
            throw VhdxRegions.Damaged($"its disk has {diskSize} bytes; whole sectors up to {LargestDisk} are possible");
        }
        return new VhdxMetadata(blockSize, (parameters[4] & 1) != 0, hasParent, (long)diskSize, sectorSize);
    }
}
