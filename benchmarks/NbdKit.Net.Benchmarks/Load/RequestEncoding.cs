using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Load;

/// <summary>Writes request headers.</summary>
internal static class RequestEncoding
{
    public static void Write(Span<byte> header, CommandType type, ulong cookie, long offset, int length)
    {
        BinaryPrimitives.WriteUInt32BigEndian(header, Magic.Request);
        BinaryPrimitives.WriteUInt16BigEndian(header[4..], 0);
        BinaryPrimitives.WriteUInt16BigEndian(header[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(header[8..], cookie);
        BinaryPrimitives.WriteInt64BigEndian(header[16..], offset);
        BinaryPrimitives.WriteInt32BigEndian(header[24..], length);
    }

    /// <summary>Reads of a length, one after the other, with their numbers as cookies.</summary>
    public static byte[] Reads(int count, int length)
    {
        byte[] batch = new byte[count * RequestHeader.Size];
        for (int i = 0; i < count; i++)
        {
            Write(batch.AsSpan(i * RequestHeader.Size), CommandType.Read, (ulong)i, (long)i * length, length);
        }
        return batch;
    }
}
