using System.Buffers.Binary;
using NbdKit.Filters.Ext2;

namespace NbdKit.Tests.Testing;

/// <summary>Makes a clean VHDX image dirty: entries in its log, written by hand.</summary>
internal sealed class VhdxLogWriter
{
    public const int Sector = 4096;

    private static readonly int[] Headers = [64 << 10, 128 << 10];

    private readonly byte[] _image;
    private readonly Guid _id = new("12345678-1234-1234-1234-123456789ABC");
    private int _position;

    /// <param name="image">The image, which is changed.</param>
    /// <param name="position">Where in the log the first entry goes.</param>
    /// <param name="sequence">The number before that of the first entry.</param>
    public VhdxLogWriter(byte[] image, int position, ulong sequence)
    {
        _image = image;
        _position = position;
        Tail = position;
        Sequence = sequence;
        LogAt = (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(Headers[0] + 72));
        LogLength = (int)BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(Headers[0] + 68));
        SetHeaders(_id);
    }

    public int LogAt { get; }

    public int LogLength { get; }

    public ulong Sequence { get; set; }

    /// <summary>The oldest entry that matters.</summary>
    public int Tail { get; set; }

    public long FlushedSize { get; set; }

    public long FileSize { get; set; }

    /// <summary>Changes what the headers say of the log.</summary>
    public void SetHeaders(Guid log, Action<byte[], int>? more = null)
    {
        foreach (int at in Headers)
        {
            log.ToByteArray().CopyTo(_image, at + 48);
            more?.Invoke(_image, at);
            Sum(_image.AsSpan(at, Sector));
        }
    }

    /// <summary>Adds an entry; null for zeroes.</summary>
    /// <returns>Where it is in the log, and its length.</returns>
    public (int At, int Length) Add(params (long Offset, long Length, byte[]? Data)[] changes)
    {
        ulong sequence = ++Sequence;
        int descriptors = (64 + (changes.Length * 32) + Sector - 1) / Sector * Sector;
        byte[] entry = new byte[descriptors + (changes.Count(change => change.Data is not null) * Sector)];
        "loge"u8.CopyTo(entry);
        BinaryPrimitives.WriteInt32LittleEndian(entry.AsSpan(8), entry.Length);
        BinaryPrimitives.WriteInt32LittleEndian(entry.AsSpan(12), Tail);
        BinaryPrimitives.WriteUInt64LittleEndian(entry.AsSpan(16), sequence);
        BinaryPrimitives.WriteInt32LittleEndian(entry.AsSpan(24), changes.Length);
        _id.ToByteArray().CopyTo(entry, 32);
        BinaryPrimitives.WriteInt64LittleEndian(entry.AsSpan(48), FlushedSize);
        BinaryPrimitives.WriteInt64LittleEndian(entry.AsSpan(56), FileSize);
        int data = descriptors;
        for (int i = 0; i < changes.Length; i++)
        {
            Span<byte> descriptor = entry.AsSpan(64 + (i * 32), 32);
            (long offset, long length, byte[]? bytes) = changes[i];
            BinaryPrimitives.WriteInt64LittleEndian(descriptor[16..], offset);
            BinaryPrimitives.WriteUInt64LittleEndian(descriptor[24..], sequence);
            if (bytes is null)
            {
                "zero"u8.CopyTo(descriptor);
                BinaryPrimitives.WriteInt64LittleEndian(descriptor[8..], length);
                continue;
            }
            "desc"u8.CopyTo(descriptor);
            bytes.AsSpan(Sector - 4).CopyTo(descriptor[4..]);
            bytes.AsSpan(0, 8).CopyTo(descriptor[8..]);
            Span<byte> sector = entry.AsSpan(data, Sector);
            bytes.CopyTo(sector);
            "data"u8.CopyTo(sector);
            BinaryPrimitives.WriteUInt32LittleEndian(sector[4..], (uint)(sequence >> 32));
            BinaryPrimitives.WriteUInt32LittleEndian(sector[(Sector - 4)..], (uint)sequence);
            data += Sector;
        }
        Sum(entry);
        int at = _position;
        for (int i = 0; i < entry.Length; i++)
        {
            _image[LogAt + ((at + i) % LogLength)] = entry[i];
        }
        _position = (at + entry.Length) % LogLength;
        return (at, entry.Length);
    }

    /// <summary>Gives a structure of VHDX its checksum.</summary>
    public static void Sum(Span<byte> structure)
    {
        structure.Slice(4, 4).Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(structure[4..], ~Checksum.Crc32C(Checksum.Start, structure));
    }
}
