using System.Buffers.Binary;
using NbdKit.Layers;

namespace NbdKit.Plugins.Vhd;

/// <summary>What the footer of an image says. Dynamic disks have a copy of it at their beginning.</summary>
/// <remarks>
/// Big endian: byte 0 "conectix", 16 offset of the header of a dynamic disk (8), 28 creator (4), 48 size of the disk (8), 56
/// cylinders (2), heads (1) and sectors (1), 60 type (4), 64 checksum (4): the complement of the sum of all other
/// bytes, 68 unique id of the disk (16).
/// </remarks>
/// <param name="IsDynamic">Whether there is a table of blocks; if not, the disk is in the file as it is.</param>
/// <param name="Size">The size of the disk in bytes.</param>
/// <param name="HeaderOffset">Where the header of a dynamic disk is.</param>
/// <param name="HasParent">Whether it holds the changes to another disk.</param>
/// <param name="Id">What tells the disk from all others.</param>
internal sealed record Footer(bool IsDynamic, long Size, ulong HeaderOffset, bool HasParent, Guid Id)
{
    public const int Length = 512;

    // The most that a geometry can say: such a disk may be larger.
    private const long MostSectors = 65_535L * 16 * 255;

    /// <summary>Reads the footer of an image, or its copy if the footer is damaged.</summary>
    /// <exception cref="NbdException">The image is none, is damaged, or is of a kind that is not supported.</exception>
    public static async ValueTask<Footer> ReadAsync(ImageDisk file, CancellationToken cancellationToken)
    {
        bool wasThere = false;
        byte[] raw = new byte[Length];
        foreach (long at in new[] { file.Size - Length, 0 })
        {
            if (at >= 0 && file.Size >= Length)
            {
                await file.ReadAsync(raw, at, cancellationToken).ConfigureAwait(false);
                if (raw.AsSpan().StartsWith("conectix"u8))
                {
                    wasThere = true;
                    if (IsWhole(raw, 64))
                    {
                        return Parse(raw, file.Size);
                    }
                }
            }
        }
        throw wasThere ? Damaged("its footer has the wrong checksum") : Refused("this is not a VHD image: its footer is missing");
    }

    /// <summary>Whether a structure has the checksum that it says it has.</summary>
    public static bool IsWhole(ReadOnlySpan<byte> structure, int checksum)
    {
        uint sum = 0;
        for (int i = 0; i < structure.Length; i++)
        {
            sum += i < checksum || i >= checksum + sizeof(uint) ? structure[i] : (uint)0;
        }
        return ~sum == BinaryPrimitives.ReadUInt32BigEndian(structure[checksum..]);
    }

    public static NbdException Damaged(string what) => new(NbdError.IoError, $"the VHD image is damaged: {what}");

    public static NbdException Refused(string why) => new(NbdError.InvalidArgument, why);

    private static Footer Parse(ReadOnlySpan<byte> raw, long fileSize)
    {
        uint type = BinaryPrimitives.ReadUInt32BigEndian(raw[60..]);
        if (type is not (2 or 3 or 4))
        {
            throw Refused($"the VHD image has type {type}; fixed (2), dynamic (3) and differencing (4) disks can be read");
        }
        ulong size = SizeOf(raw);
        if (size > long.MaxValue || (type == 2 && size > (ulong)(fileSize - Length)))
        {
            throw Damaged($"a disk of {size} bytes, in a file of {fileSize} bytes");
        }
        return new Footer(
            type != 2,
            (long)size,
            BinaryPrimitives.ReadUInt64BigEndian(raw[16..]),
            type == 4,
            new Guid(raw.Slice(68, 16), bigEndian: true));
    }

    // Virtual PC, and QEMU in its name, mean the geometry; everybody else means the size.
    private static ulong SizeOf(ReadOnlySpan<byte> raw)
    {
        ReadOnlySpan<byte> creator = raw.Slice(28, 4);
        long sectors = (long)BinaryPrimitives.ReadUInt16BigEndian(raw[56..]) * raw[58] * raw[59];
        bool usesGeometry = (creator.SequenceEqual("vpc "u8) || creator.SequenceEqual("qemu"u8)) && sectors != MostSectors;
        return usesGeometry ? (ulong)sectors * 512 : BinaryPrimitives.ReadUInt64BigEndian(raw[48..]);
    }
}
