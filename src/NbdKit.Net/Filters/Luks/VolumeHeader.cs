using System.Buffers.Binary;
using NbdKit.Filters.Partition;

namespace NbdKit.Filters.Luks;

/// <summary>What the header of a disk says, of either version. Every value has been checked against what can be.</summary>
internal sealed record VolumeHeader
{
    /// <summary>The first bytes of a disk.</summary>
    public static ReadOnlySpan<byte> Magic => [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE];

    /// <summary>A digest of the header: it is another one if anything in it has changed.</summary>
    public required byte[] Fingerprint { get; init; }

    /// <summary>The cipher of the data.</summary>
    public required CipherSpec Cipher { get; init; }

    /// <summary>Where the data begins on the disk.</summary>
    public required long Offset { get; init; }

    /// <summary>How long it is, or null if it goes to the end of the disk.</summary>
    public long? Length { get; init; }

    public int SectorSize { get; init; } = 512;

    /// <summary>The number of the first sector, as far as initialization vectors are concerned.</summary>
    public ulong FirstSector { get; init; }

    /// <summary>Whether the header says that discards are passed to the disk.</summary>
    public bool AllowsDiscards { get; init; }

    /// <summary>The key slots that can be tried, in the order in which to try them.</summary>
    public required IReadOnlyList<KeySlot> Slots { get; init; }

    /// <summary>Which key slots cannot be tried, and why.</summary>
    public required IReadOnlyList<string> Unusable { get; init; }

    /// <summary>Reads the header of a disk.</summary>
    /// <exception cref="NbdException">There is none, or it is wrong.</exception>
    public static async ValueTask<VolumeHeader> ReadAsync(NextContext next, CancellationToken cancellationToken)
    {
        var disk = new SectorReader(next, 1);
        byte[] start = new byte[Luks1Header.Bytes];
        if (disk.Count >= start.Length)
        {
            await disk.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
        }
        if (!start.AsSpan().StartsWith(Magic))
        {
            return await Luks2Header.FindSecondaryAsync(disk, cancellationToken).ConfigureAwait(false)
                ?? throw Fault.Refused("it does not begin with a LUKS header");
        }
        int version = BinaryPrimitives.ReadUInt16BigEndian(start.AsSpan(6));
        return version switch
        {
            1 => Luks1Header.Parse(start, next.Info.Size),
            2 => await Luks2Header.ReadAsync(disk, cancellationToken).ConfigureAwait(false),
            _ => throw Fault.Refused($"version {version} of LUKS is not known"),
        };
    }

    /// <summary>Whether a range is inside the disk.</summary>
    public static bool IsInside(long offset, long length, long diskSize)
        => offset >= 0 && length >= 0 && offset <= diskSize && length <= diskSize - offset;
}
