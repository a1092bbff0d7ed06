using NbdKit.Layers;

namespace NbdKit.Filters.Sequential;

/// <summary>The layer below as a stream, from its first byte to its last, in large reads that are aligned for it.</summary>
/// <param name="next">The layer below.</param>
/// <param name="epilogue">What follows its last byte.</param>
internal sealed class SourceStream(NextContext next, byte[] epilogue) : Stream
{
    // A multiple of every minimum block size.
    private const int ChunkBytes = 1 << 20;

    private readonly byte[] _chunk = new byte[(int)Math.Min(ChunkBytes, next.Info.Size)];
    private Memory<byte> _rest;
    private long _position;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Whether the stream was read up to what follows the layer below.</summary>
    public bool HasServedEpilogue { get; private set; }

    /// <summary>The bytes that were read from the layer below and not yet from here; at least one unless it has ended.</summary>
    public async ValueTask<ReadOnlyMemory<byte>> PeekAsync(CancellationToken cancellationToken)
    {
        if (_rest.IsEmpty && _position < next.Info.Size)
        {
            _rest = _chunk.AsMemory(0, (int)Math.Min(_chunk.Length, next.Info.Size - _position));
            await next.ReadInPiecesAsync(_rest, _position, cancellationToken).ConfigureAwait(false);
            _position += _rest.Length;
        }
        return _rest;
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        await PeekAsync(cancellationToken).ConfigureAwait(false);
        if (_rest.IsEmpty && !HasServedEpilogue)
        {
            HasServedEpilogue = true;
            _rest = epilogue;
        }
        int count = Math.Min(buffer.Length, _rest.Length);
        _rest[..count].CopyTo(buffer);
        _rest = _rest[count..];
        return count;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
        => ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}
