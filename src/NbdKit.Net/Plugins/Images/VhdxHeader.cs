using System.Buffers.Binary;

namespace NbdKit.Plugins.Images;

/// <summary>
/// The header of an image ("VHDX Format Specification", 2.2.2). There are two, at 64 and 128 KiB, of 4 KiB each, little endian;
/// the one with the larger sequence number holds:
/// <code>
///  0 "head"  4 checksum  8 sequence (8)  16 GUID of the file (16)  32 GUID of the data (16)  48 GUID of the log (16)
/// 64 version of the log (2)  66 version (2)  68 length of the log (4)  72 offset of the log (8)
/// </code>
/// </summary>
/// <param name="DataId">Changes whenever the data of the disk do.</param>
/// <param name="LogId">If it is not zero, the log has changes that are not in place.</param>
/// <param name="LogVersion">The version of the log.</param>
/// <param name="LogAt">Where the log is.</param>
/// <param name="LogLength">How long it is.</param>
internal sealed record VhdxHeader(Guid DataId, Guid LogId, int LogVersion, ulong LogAt, long LogLength)
{
    private const int HeaderSize = 4096;

    // What must be there of any image: up to the end of the second region table.
    private const long LeastSize = 320 << 10;

    private static readonly long[] HeadersAt = [64 << 10, 128 << 10];

    public bool IsDirty => LogId != Guid.Empty;

    public static async ValueTask<VhdxHeader> ReadAsync(MappedView view, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[HeaderSize];
        Memory<byte> signature = bytes.AsMemory(0, 8);
        if (view.Size >= signature.Length)
        {
            await view.ReadAsync(0, signature, cancellationToken).ConfigureAwait(false);
        }
        if (!bytes.AsSpan().StartsWith("vhdxfile"u8))
        {
            throw new NbdException(NbdError.InvalidArgument, "this is not a VHDX image");
        }
        if (!view.Has(0, LeastSize))
        {
            throw VhdxRegions.Damaged($"it ends after {view.Size} bytes, in its headers");
        }
        ulong? newest = null;
        VhdxHeader? header = null;
        foreach (long at in HeadersAt)
        {
            await view.ReadAsync(at, bytes, cancellationToken).ConfigureAwait(false);
            ulong sequence = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(8));
            if (bytes.AsSpan().StartsWith("head"u8) && VhdxChecksum.IsRight(bytes) && !(sequence <= newest))
            {
                newest = sequence;
                header = Parse(bytes);
            }
        }
        return header ?? throw VhdxRegions.Damaged("both of its headers have wrong checksums");
    }

    private static VhdxHeader Parse(ReadOnlySpan<byte> bytes)
    {
        int version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[66..]);
        return version == 1
            ? new VhdxHeader(
                new Guid(bytes.Slice(32, 16)),
                new Guid(bytes.Slice(48, 16)),
                BinaryPrimitives.ReadUInt16LittleEndian(bytes[64..]),
                BinaryPrimitives.ReadUInt64LittleEndian(bytes[72..]),
                BinaryPrimitives.ReadUInt32LittleEndian(bytes[68..]))
            : throw new NbdException(NbdError.InvalidArgument, $"the VHDX image is of version {version}, which is not read");
    }
}
