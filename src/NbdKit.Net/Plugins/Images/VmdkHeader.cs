using System.Buffers.Binary;
using System.Numerics;

namespace NbdKit.Plugins.Images;

/// <summary>
/// The header of a sparse extent of VMware's hosted products. Little endian, not aligned; offsets and sizes in sectors of 512
/// bytes:
/// <code>
///  0 "KDMV"    12 capacity (8)     28 descriptor offset (8)   44 entries of a table (4)   56 directory offset (8)
///  4 version   20 grain size (8)   36 descriptor size (8)     48 second directory (8)     77 compression (2): 1 is deflate
///  8 flags     flags: 2 is zeroed grains, 16 compressed grains
/// </code>
/// </summary>
internal sealed record VmdkHeader(
    long Capacity, long GrainSize, long DescriptorAt, long DescriptorSize, long TableEntries, long DirectoryAt, bool HasZeroed, bool IsPacked)
{
    public const int Size = 512;

    private const int LargestGrain = 4 << 20;
    private const long LargestDescriptor = 1 << 20;

    // The directory is in a second header at the end, which was not known when the first one was written.
    private const ulong DirectoryAtEnd = ulong.MaxValue;
    private const int FooterDistance = 1536;
    private const uint FooterMarker = 3;

    public static ReadOnlySpan<byte> Magic => "KDMV"u8;

    /// <summary>Reads and checks the header of an extent; all in bytes afterwards.</summary>
    public static async ValueTask<VmdkHeader> ReadAsync(MappedView view, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Size];
        await view.ReadAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(56)) == DirectoryAtEnd)
        {
            byte[] footer = new byte[FooterDistance];
            await view.ReadAsync(view.Size - FooterDistance, footer, cancellationToken).ConfigureAwait(false);
            if (BinaryPrimitives.ReadUInt32LittleEndian(footer.AsSpan(12)) != FooterMarker || !footer.AsSpan(512).StartsWith(Magic))
            {
                throw Damaged("it has no footer, where its directory should be; it may have been cut off");
            }
            bytes = footer[512..1024];
        }
        return Parse(bytes, view);
    }

    public static NbdException Damaged(string what) => new(NbdError.InvalidArgument, $"the VMDK image is damaged: {what}");

    private static VmdkHeader Parse(ReadOnlySpan<byte> bytes, MappedView view)
    {
        uint version = BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        bool packed = (flags & (1 << 16)) != 0;
        if (!bytes.StartsWith(Magic) || version is < 1 or > 3)
        {
            throw new NbdException(NbdError.InvalidArgument, $"the VMDK image has a sparse extent of an unknown kind (version {version})");
        }
        if (packed && BinaryPrimitives.ReadUInt16LittleEndian(bytes[77..]) != 1)
        {
            throw new NbdException(NbdError.InvalidArgument, "the VMDK image is compressed by an unknown method");
        }
        long capacity = Bytes(bytes, 12, "capacity");
        long grain = Bytes(bytes, 20, "grain size");
        long descriptorAt = Bytes(bytes, 28, "descriptor's place");
        long descriptorSize = Bytes(bytes, 36, "descriptor's size");
        long entries = BinaryPrimitives.ReadUInt32LittleEndian(bytes[44..]);
        long directory = Bytes(bytes, 56, "directory's place");
        if (descriptorAt != 0 && (descriptorSize > LargestDescriptor || !view.Has(descriptorAt, descriptorSize)))
        {
            throw Damaged($"its descriptor has {descriptorSize} bytes at {descriptorAt}");
        }
        if (capacity > 0)
        {
            if (grain is < 4096 or > LargestGrain || !BitOperations.IsPow2(grain))
            {
                throw Damaged($"its grains have {grain} bytes; a power of two from 4096 to {LargestGrain} is possible");
            }
            if (entries is < 1 or > 4096)
            {
                throw Damaged($"its tables have {entries} entries; 1 to 4096 are possible");
            }
            long tables = (capacity - 1) / (entries * grain) + 1;
            if (!view.Has(directory, tables * 4))
            {
                throw Damaged($"its directory of {tables} tables at {directory} is not inside the {view.Size} bytes of the image");
            }
        }
        return new VmdkHeader(capacity, grain, descriptorAt, descriptorSize, entries, directory, (flags & 4) != 0, packed);
    }

    private static long Bytes(ReadOnlySpan<byte> bytes, int at, string what)
    {
        ulong sectors = BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]);
        return sectors <= long.MaxValue / Size ? (long)sectors * Size : throw Damaged($"its {what} is {sectors} sectors");
    }
}
