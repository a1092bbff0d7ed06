using System.Buffers.Binary;
using NbdKit.Layers;
using NbdKit.Plugins.Images;

namespace NbdKit.Plugins.Vdi;

/// <summary>Where the blocks of a VDI image are.</summary>
/// <remarks>
/// The header, little endian: byte 40h signature (4), 44h version (2 and 2), 4Ch type (4), 154h offset of the table (4), 158h
/// offset of the blocks (4), 168h sector size (4), 170h size of the disk (8), 178h size of a block (4), 17Ch bytes before the data
/// of a block (4), 180h number of blocks (4). An entry of the table is the number of the block in the file, FFFFFFFFh for one that
/// was never written, or FFFFFFFEh for one that was given up.
/// </remarks>
internal sealed class VdiMap : BlockMap
{
    private const int HeaderSize = 512;
    private const uint Signature = 0xBEDA_107F;
    private const uint GivenUp = 0xFFFF_FFFE;
    private const uint LargestBlock = 64 << 20;

    private readonly long _data;
    private readonly long _blockSize;
    private readonly long _fileSize;

    private VdiMap(TablePages tables, long table, long data, long blockSize, long fileSize)
        : base(tables, table, blockSize)
    {
        _data = data;
        _blockSize = blockSize;
        _fileSize = fileSize;
    }

    /// <summary>Reads the header of an image.</summary>
    /// <exception cref="NbdException">It is not one, is damaged, or is of a kind that is not supported.</exception>
    public static async ValueTask<(VdiMap Map, long Size)> OpenAsync(
        ImageDisk file, TablePages tables, CancellationToken cancellationToken)
    {
        byte[] header = new byte[HeaderSize];
        if (file.Size >= HeaderSize)
        {
            await file.ReadAsync(header, 0, cancellationToken).ConfigureAwait(false);
        }
        return Read(header, file.Size, tables);
    }

    protected override uint Read(ReadOnlySpan<byte> entry) => BinaryPrimitives.ReadUInt32LittleEndian(entry);

    protected override long? PlaceOf(uint entry)
    {
        if (entry >= GivenUp)
        {
            return null;
        }
        long place = _data + (entry * _blockSize);
        return place < _fileSize
            ? place
            : throw Damaged($"block {entry} of the file is at {place}, after its {_fileSize} bytes");
    }

    private static (VdiMap Map, long Size) Read(ReadOnlySpan<byte> header, long fileSize, TablePages tables)
    {
        if (U32(header, 0x40) != Signature)
        {
            throw Refused("this is not a VDI image: its signature is missing");
        }
        if (U32(header, 0x44) is not 0x0001_0001 and var version)
        {
            throw Refused($"the VDI image has version {version >> 16}.{version & 0xFFFF}; version 1.1 can be read");
        }
        if (U32(header, 0x4C) is not (1 or 2) and var type)
        {
            throw Refused(
                $"the VDI image has type {type}{(type is 3 or 4 ? ", the changes to another image" : "")}; "
                + "dynamic (1) and static (2) images can be read");
        }
        ulong size = BinaryPrimitives.ReadUInt64LittleEndian(header[0x170..]);
        (uint blockSize, uint extra, uint count) = (U32(header, 0x178), U32(header, 0x17C), U32(header, 0x180));
        if (blockSize is < 512 or > LargestBlock || !uint.IsPow2(blockSize) || extra != 0)
        {
            throw Refused($"the VDI image has blocks of {blockSize} bytes with {extra} bytes before them");
        }
        if (size > (ulong)count * blockSize)
        {
            throw Damaged($"{count} blocks of {blockSize} bytes for a disk of {size} bytes");
        }
        (uint table, uint data) = (U32(header, 0x154), U32(header, 0x158));
        long needed = (long)(((size + blockSize - 1) / blockSize) * sizeof(uint));
        if (table % sizeof(uint) != 0 || needed > fileSize - table)
        {
            throw Damaged($"a table of {needed} bytes at {table}, in a file of {fileSize} bytes");
        }
        return (new VdiMap(tables, table, data, blockSize, fileSize), (long)size);
    }

    private static uint U32(ReadOnlySpan<byte> header, int at) => BinaryPrimitives.ReadUInt32LittleEndian(header[at..]);

    private static NbdException Refused(string why) => new(NbdError.InvalidArgument, why);

    private static NbdException Damaged(string what) => new(NbdError.IoError, $"the VDI image is damaged: {what}");
}
