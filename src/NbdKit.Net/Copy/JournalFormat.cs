using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace NbdKit.Copy;

/// <summary>The bytes of a journal.</summary>
/// <remarks>
/// <code>
/// header   0    8  "NBDCPYJ1"
///          8    8  size of the source        all numbers are big endian
///         16    8  size of the destination
///         24    4  granularity: ranges begin at multiples of it
///         28    4  n
///         32    n  identity of the copy, UTF-8
///       32+n   32  SHA-256 of all before
/// record   0    4  k
///          4  16k  k times offset and length of a range that is on stable storage
///      4+16k   32  SHA-256 of the checksum before this record, and of the record up to here
/// </code>
/// Each record's checksum takes in the one before it, so that neither a record of another journal nor what is left of a torn
/// one passes for the next.
/// </remarks>
internal static class JournalFormat
{
    private const int FixedBytes = 32;
    private const int RangeBytes = 16;

    private static ReadOnlySpan<byte> Magic => "NBDCPYJ1"u8;

    /// <summary>The header of a copy.</summary>
    public static byte[] Header(in JournalIdentity identity)
    {
        byte[] name = Encoding.UTF8.GetBytes(identity.Name);
        byte[] header = new byte[FixedBytes + name.Length + SHA256.HashSizeInBytes];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(8), identity.SourceSize);
        BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(16), identity.DestinationSize);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(24), identity.Granularity);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(28), name.Length);
        name.CopyTo(header, FixedBytes);
        SHA256.HashData(header.AsSpan(0, FixedBytes + name.Length), header.AsSpan(FixedBytes + name.Length));
        return header;
    }

    /// <summary>A record that follows what ends with a checksum.</summary>
    public static byte[] Record(IReadOnlyList<CopyRange> ranges, ReadOnlySpan<byte> before)
    {
        int body = sizeof(int) + (ranges.Count * RangeBytes);
        byte[] record = new byte[body + SHA256.HashSizeInBytes];
        BinaryPrimitives.WriteInt32BigEndian(record, ranges.Count);
        for (int i = 0; i < ranges.Count; i++)
        {
            Span<byte> at = record.AsSpan(sizeof(int) + (i * RangeBytes));
            BinaryPrimitives.WriteInt64BigEndian(at, ranges[i].Offset);
            BinaryPrimitives.WriteInt64BigEndian(at[8..], ranges[i].Length);
        }
        Sum(before, record.AsSpan(0, body), record.AsSpan(body));
        return record;
    }

    /// <summary>The checksum that a header or record ends with.</summary>
    public static ReadOnlySpan<byte> Checksum(ReadOnlySpan<byte> data) => data[^SHA256.HashSizeInBytes..];

    /// <summary>Reads a header.</summary>
    /// <returns>Its length, or 0 if it is none.</returns>
    public static int ReadHeader(ReadOnlySpan<byte> data, out JournalIdentity identity)
    {
        identity = default;
        if (data.Length < FixedBytes + SHA256.HashSizeInBytes || !data.StartsWith(Magic))
        {
            return 0;
        }
        int name = BinaryPrimitives.ReadInt32BigEndian(data[28..]);
        if (name < 0 || name > data.Length - FixedBytes - SHA256.HashSizeInBytes)
        {
            return 0;
        }
        Span<byte> sum = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(data[..(FixedBytes + name)], sum);
        if (!data.Slice(FixedBytes + name, sum.Length).SequenceEqual(sum))
        {
            return 0;
        }
        identity = new JournalIdentity(
            BinaryPrimitives.ReadInt64BigEndian(data[8..]),
            BinaryPrimitives.ReadInt64BigEndian(data[16..]),
            BinaryPrimitives.ReadInt32BigEndian(data[24..]),
            Encoding.UTF8.GetString(data.Slice(FixedBytes, name)));
        return FixedBytes + name + sum.Length;
    }

    /// <summary>Adds the ranges of a record to a set.</summary>
    /// <returns>Its length, or 0 if it is torn or makes no sense: what is in the set is not touched then.</returns>
    public static int ReadRecord(
        ReadOnlySpan<byte> data, ReadOnlySpan<byte> before, in JournalIdentity identity, RangeSet ranges)
    {
        if (data.Length < sizeof(int) + SHA256.HashSizeInBytes)
        {
            return 0;
        }
        int count = BinaryPrimitives.ReadInt32BigEndian(data);
        long body = sizeof(int) + ((long)count * RangeBytes);
        if (count < 0 || body > data.Length - SHA256.HashSizeInBytes)
        {
            return 0;
        }
        Span<byte> sum = stackalloc byte[SHA256.HashSizeInBytes];
        Sum(before, data[..(int)body], sum);
        if (!data.Slice((int)body, sum.Length).SequenceEqual(sum))
        {
            return 0;
        }
        var read = new CopyRange[count];
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> at = data[(sizeof(int) + (i * RangeBytes))..];
            read[i] = new CopyRange(BinaryPrimitives.ReadInt64BigEndian(at), BinaryPrimitives.ReadInt64BigEndian(at[8..]));
            if (!identity.Allows(read[i]))
            {
                return 0;
            }
        }
        foreach (CopyRange range in read)
        {
            ranges.Add(range.Offset, range.Length);
        }
        return (int)body + sum.Length;
    }

    private static void Sum(ReadOnlySpan<byte> before, ReadOnlySpan<byte> body, Span<byte> sum)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(before);
        hash.AppendData(body);
        hash.GetHashAndReset(sum);
    }
}
