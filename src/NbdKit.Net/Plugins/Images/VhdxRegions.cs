using System.Buffers.Binary;

namespace NbdKit.Plugins.Images;

/// <summary>
/// Where the parts of an image are ("VHDX Format Specification", 2.2.3). All little endian:
/// <code>
/// 192 KiB, 256 KiB: region tables, 64 KiB each, the second one a copy
///   0 "regi"  4 checksum  8 number of entries (4)
///  16 entries of 32: GUID (16), offset (8), length (4), 1 if required (4)
/// </code>
/// </summary>
internal sealed record VhdxRegions(long BlocksAt, long BlocksLength, long MetadataAt, long MetadataLength)
{
    private const int TableSize = 64 << 10;
    private const int MostEntries = 2047;
    private const long Mebibyte = 1 << 20;

    private static readonly long[] TablesAt = [192 << 10, 256 << 10];
    private static readonly Guid BlocksId = new("2DC27766-F623-4200-9D64-115E9BFD4A08");
    private static readonly Guid MetadataId = new("8B7CA206-4790-4B9A-B8FE-575F050F886E");

    public static async ValueTask<VhdxRegions> ReadAsync(MappedView view, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[TableSize];
        foreach (long at in TablesAt)
        {
            await view.ReadAsync(at, bytes, cancellationToken).ConfigureAwait(false);
            if (bytes.AsSpan().StartsWith("regi"u8) && VhdxChecksum.IsRight(bytes))
            {
                return Parse(bytes, view);
            }
        }
        throw Damaged("both of its region tables have wrong checksums");
    }

    public static NbdException Damaged(string what) => new(NbdError.InvalidArgument, $"the VHDX image is damaged: {what}");

    private static VhdxRegions Parse(ReadOnlySpan<byte> table, MappedView view)
    {
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(table[8..]);
        if (count > MostEntries)
        {
            throw Damaged($"its region table has {count} entries");
        }
        (long At, long Length)? blocks = null;
        (long At, long Length)? metadata = null;
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = table.Slice(16 + (i * 32), 32);
            var id = new Guid(entry[..16]);
            ulong at = BinaryPrimitives.ReadUInt64LittleEndian(entry[16..]);
            long length = BinaryPrimitives.ReadUInt32LittleEndian(entry[24..]);
            if (id != BlocksId && id != MetadataId)
            {
                if ((entry[28] & 1) != 0)
                {
                    throw new NbdException(NbdError.InvalidArgument, $"the VHDX image needs the region {id}, which is not known");
                }
                continue;
            }
            if (at > long.MaxValue || at < Mebibyte || at % Mebibyte != 0 || !view.Has((long)at, length))
            {
                throw Damaged($"its region {id} of {length} bytes at {at} is not inside the {view.Size} bytes of the image");
            }
            ref (long At, long Length)? region = ref id == BlocksId ? ref blocks : ref metadata;
            region = region is null ? ((long)at, length) : throw Damaged($"it has the region {id} twice");
        }
        return blocks is { } b && metadata is { } m
            ? new VhdxRegions(b.At, b.Length, m.At, m.Length)
            : throw Damaged("it has no block table or no metadata");
    }
}
