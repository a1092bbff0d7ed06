using System.Buffers.Binary;
using BenchmarkDotNet.Attributes;
using NbdKit.Benchmarks.Load;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks;

/// <summary>What it costs to parse request headers. The baseline reads the same integers and makes nothing of them.</summary>
[MemoryDiagnoser]
public class FramingBenchmarks
{
    private const int Count = 64;

    private readonly byte[] _batch = RequestEncoding.Reads(Count, 4096);

    [Benchmark(Baseline = true, OperationsPerInvoke = Count)]
    public ulong Integers()
    {
        ulong sum = 0;
        for (ReadOnlySpan<byte> rest = _batch; rest.Length > 0; rest = rest[RequestHeader.Size..])
        {
            sum += BinaryPrimitives.ReadUInt32BigEndian(rest)
                + BinaryPrimitives.ReadUInt16BigEndian(rest[4..])
                + BinaryPrimitives.ReadUInt16BigEndian(rest[6..])
                + BinaryPrimitives.ReadUInt64BigEndian(rest[8..])
                + BinaryPrimitives.ReadUInt64BigEndian(rest[16..])
                + BinaryPrimitives.ReadUInt32BigEndian(rest[24..]);
        }
        return sum;
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public ulong Headers()
    {
        ulong sum = 0;
        for (ReadOnlySpan<byte> rest = _batch; rest.Length > 0; rest = rest[RequestHeader.Size..])
        {
            if (RequestHeader.TryRead(rest, extended: false, out RequestHeader header))
            {
                sum += (ulong)header.Flags + (ulong)header.Type + header.Cookie + header.Offset + header.Length;
            }
        }
        return sum;
    }
}
