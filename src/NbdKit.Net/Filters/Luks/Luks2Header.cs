using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using NbdKit.Filters.Partition;

namespace NbdKit.Filters.Luks;

/// <summary>
/// The header of version 2 ("LUKS2 On-Disk Format Specification"): a binary part of 4,096 bytes, followed by text in JSON. There
/// are two copies; the second is used if the first is damaged. Numbers are big-endian.
/// </summary>
/// <remarks>
/// <code>
///   0  6  magic, another one in the second copy       72  32  hash of the checksum
///   6  2  version                                    256   8  offset of this copy
///   8  8  bytes in the copy, both parts together     448  64  checksum of the copy, with zeroes in this place
/// </code>
/// </remarks>
internal static class Luks2Header
{
    private const int BinaryBytes = 4096;
    private const int SmallestCopy = 16 << 10;
    private const int LargestCopy = 4 << 20;

    private static ReadOnlySpan<byte> SecondMagic => [0x53, 0x4B, 0x55, 0x4C, 0xBA, 0xBE];

    /// <summary>Reads the first copy, or the second if the first is damaged.</summary>
    public static async ValueTask<VolumeHeader> ReadAsync(SectorReader disk, CancellationToken cancellationToken)
    {
        byte[]? copy = await ReadCopyAsync(disk, 0, cancellationToken).ConfigureAwait(false);
        return copy is not null
            ? Luks2Metadata.Parse(copy.AsMemory(BinaryBytes), SHA256.HashData(copy), disk.Count)
            : await FindSecondaryAsync(disk, cancellationToken).ConfigureAwait(false)
                ?? throw Fault.Refused("both copies of its header are damaged");
    }

    /// <summary>Looks for a second copy, which is where a first copy of one of the possible lengths would end.</summary>
    public static async ValueTask<VolumeHeader?> FindSecondaryAsync(SectorReader disk, CancellationToken cancellationToken)
    {
        for (int offset = SmallestCopy; offset <= LargestCopy; offset *= 2)
        {
            byte[]? copy = await ReadCopyAsync(disk, offset, cancellationToken).ConfigureAwait(false);
            if (copy is not null)
            {
                return Luks2Metadata.Parse(copy.AsMemory(BinaryBytes), SHA256.HashData(copy), disk.Count);
            }
        }
        return null;
    }

    private static async ValueTask<byte[]?> ReadCopyAsync(SectorReader disk, int offset, CancellationToken cancellationToken)
    {
        byte[] binary = new byte[BinaryBytes];
        if (!VolumeHeader.IsInside(offset, BinaryBytes, disk.Count))
        {
            return null;
        }
        await disk.ReadAsync(offset, binary, cancellationToken).ConfigureAwait(false);
        ulong length = BinaryPrimitives.ReadUInt64BigEndian(binary.AsSpan(8));
        if (!binary.AsSpan().StartsWith(offset == 0 ? VolumeHeader.Magic : SecondMagic)
            || BinaryPrimitives.ReadUInt16BigEndian(binary.AsSpan(6)) != 2
            || length is < SmallestCopy or > LargestCopy
            || !ulong.IsPow2(length)
            || BinaryPrimitives.ReadUInt64BigEndian(binary.AsSpan(256)) != (ulong)offset
            || !VolumeHeader.IsInside(offset, (long)length, disk.Count)
            || !HashSpec.TryParse(Encoding.ASCII.GetString(binary.AsSpan(72, 32)).TrimEnd('\0'), out HashSpec hash))
        {
            return null;
        }
        byte[] copy = new byte[length];
        binary.CopyTo(copy, 0);
        await disk.ReadAsync(offset + BinaryBytes, copy.AsMemory(BinaryBytes), cancellationToken).ConfigureAwait(false);
        Span<byte> field = copy.AsSpan(448, 64);
        byte[] checksum = field[..hash.Size].ToArray();
        field.Clear();
        byte[] actual = CryptographicOperations.HashData(hash.Algorithm, copy);
        checksum.CopyTo(field);
        return actual.AsSpan().SequenceEqual(checksum) ? copy : null;
    }
}
