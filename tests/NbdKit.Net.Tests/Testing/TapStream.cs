using System.Buffers;
using System.IO.Pipelines;
using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>A client's end of a connection as a stream that keeps every byte that comes, to judge it as TLS.</summary>
internal sealed class TapStream(IDuplexPipe pipe) : AsyncStream
{
    private readonly MemoryStream _received = new();

    /// <summary>The content types of all records that came; fails the test if anything else came.</summary>
    public IReadOnlyList<int> ExpectRecords()
    {
        byte[] bytes;
        lock (_received)
        {
            bytes = _received.ToArray();
        }
        var types = new List<int>();
        int position = 0;
        while (position < bytes.Length)
        {
            // type 8, version 16, length 16
            Assert.That(bytes.Length - position, Is.GreaterThanOrEqualTo(5), "a cut record");
            int length = (bytes[position + 3] << 8) | bytes[position + 4];
            Assert.That(bytes[position], Is.InRange(20, 23), $"no TLS record at {position}");
            Assert.That(bytes[position + 1], Is.EqualTo(3));
            Assert.That(length, Is.LessThanOrEqualTo((16 << 10) + 2048));
            Assert.That(bytes.Length - position - 5, Is.GreaterThanOrEqualTo(length), "a cut record");
            types.Add(bytes[position]);
            position += 5 + length;
        }
        return types;
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        ReadResult result = await pipe.Input.ReadAsync(cancellationToken);
        ReadOnlySequence<byte> some = result.Buffer.Slice(0, Math.Min(buffer.Length, result.Buffer.Length));
        some.CopyTo(buffer.Span);
        int count = (int)some.Length;
        pipe.Input.AdvanceTo(some.End);
        lock (_received)
        {
            _received.Write(buffer.Span[..count]);
        }
        return count;
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        => await pipe.Output.WriteAsync(buffer, cancellationToken);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            pipe.Output.Complete();
            pipe.Input.Complete();
        }
        base.Dispose(disposing);
    }
}
