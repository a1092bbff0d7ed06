using System.Buffers;

namespace NbdKit;

// Reading and writing: one asynchronous path, cut into requests that the disk takes.
public sealed partial class NbdStream
{
    // The largest payload that the NBD protocol asks every server to take.
    private const int LargestRequest = 32 << 20;

    // A synchronous call with a span goes through rented memory in pieces of this size.
    private const int SpanPiece = 1 << 20;

    private readonly int _blockSize;
    private readonly int _largest;
    private byte[]? _block;

    /// <summary>Reads up to as many bytes as fit, at least one unless the position is at or beyond the end.</summary>
    /// <param name="buffer">Receives the bytes.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The number of bytes read: 0 at the end or for an empty buffer.</returns>
    /// <exception cref="IOException">The disk failed.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (buffer.Length == 0 || _position >= _info.Size)
        {
            return 0;
        }
        int count = (int)Math.Min(buffer.Length, _info.Size - _position);
        int within = (int)_position & (_blockSize - 1);
        try
        {
            if (within == 0 && count >= _blockSize)
            {
                count = Math.Min(count & -_blockSize, _largest);
                await _context.ReadAsync(buffer[..count], _position, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                Memory<byte> block = BlockAt(_position - within);
                await _context.ReadAsync(block, _position - within, cancellationToken).ConfigureAwait(false);
                count = Math.Min(count, block.Length - within);
                block.Slice(within, count).CopyTo(buffer);
            }
        }
        catch (NbdException e)
        {
            throw Failed(e);
        }
        _position += count;
        return count;
    }

    /// <summary>Writes all the bytes.</summary>
    /// <param name="buffer">The bytes; they must stay unchanged until the task completes.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="IOException">
    /// The bytes do not fit before the end, and none was written; or the disk failed, and the position tells how far it
    /// came.
    /// </exception>
    /// <exception cref="NotSupportedException">The disk does not take writes.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override async ValueTask WriteAsync(
        ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckWrite(buffer.Length);
        try
        {
            while (buffer.Length > 0)
            {
                int count = buffer.Length;
                int within = (int)_position & (_blockSize - 1);
                if (within == 0 && count >= _blockSize)
                {
                    count = Math.Min(count & -_blockSize, _largest);
                    await _context.WriteAsync(buffer[..count], _position, RequestFlags.None, cancellationToken)
                        .ConfigureAwait(false);
                }
                else
                {
                    long start = _position - within;
                    Memory<byte> block = BlockAt(start);
                    count = Math.Min(count, block.Length - within);
                    if (count < block.Length)
                    {
                        await _context.ReadAsync(block, start, cancellationToken).ConfigureAwait(false);
                    }
                    buffer[..count].CopyTo(block[within..]);
                    await _context.WriteAsync(block, start, RequestFlags.None, cancellationToken).ConfigureAwait(false);
                }
                _position += count;
                buffer = buffer[count..];
            }
        }
        catch (NbdException e)
        {
            throw Failed(e);
        }
    }

    /// <inheritdoc cref="ReadAsync(Memory{byte}, CancellationToken)"/>
    /// <param name="buffer">Receives the bytes.</param>
    /// <param name="offset">Where in the buffer the first byte goes.</param>
    /// <param name="count">The largest number of bytes to read.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
    {
        ValidateBufferArguments(buffer, offset, count);
        return ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();
    }

    /// <inheritdoc cref="WriteAsync(ReadOnlyMemory{byte}, CancellationToken)"/>
    /// <param name="buffer">Holds the bytes; they must stay unchanged until the task completes.</param>
    /// <param name="offset">Where in the buffer the first byte is.</param>
    /// <param name="count">The number of bytes.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
    {
        ValidateBufferArguments(buffer, offset, count);
        return WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();
    }

    /// <inheritdoc cref="ReadAsync(Memory{byte}, CancellationToken)"/>
    /// <param name="buffer">Receives the bytes.</param>
    /// <param name="offset">Where in the buffer the first byte goes.</param>
    /// <param name="count">The largest number of bytes to read.</param>
    public override int Read(byte[] buffer, int offset, int count)
    {
        ValidateBufferArguments(buffer, offset, count);
        return Wait(ReadAsync(buffer.AsMemory(offset, count)));
    }

    /// <inheritdoc cref="WriteAsync(ReadOnlyMemory{byte}, CancellationToken)"/>
    /// <param name="buffer">Holds the bytes.</param>
    /// <param name="offset">Where in the buffer the first byte is.</param>
    /// <param name="count">The number of bytes.</param>
    public override void Write(byte[] buffer, int offset, int count)
    {
        ValidateBufferArguments(buffer, offset, count);
        Wait(WriteAsync(buffer.AsMemory(offset, count)));
    }

    /// <inheritdoc cref="ReadAsync(Memory{byte}, CancellationToken)"/>
    /// <param name="buffer">Receives the bytes.</param>
    public override int Read(Span<byte> buffer)
    {
        byte[] piece = ArrayPool<byte>.Shared.Rent(Math.Min(buffer.Length, SpanPiece));
        try
        {
            int count = Wait(ReadAsync(piece.AsMemory(0, Math.Min(buffer.Length, SpanPiece))));
            piece.AsSpan(0, count).CopyTo(buffer);
            return count;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(piece);
        }
    }

    /// <inheritdoc cref="WriteAsync(ReadOnlyMemory{byte}, CancellationToken)"/>
    /// <param name="buffer">The bytes.</param>
    public override void Write(ReadOnlySpan<byte> buffer)
    {
        CheckWrite(buffer.Length);
        byte[] piece = ArrayPool<byte>.Shared.Rent(Math.Min(buffer.Length, SpanPiece));
        try
        {
            while (buffer.Length > 0)
            {
                int count = Math.Min(buffer.Length, SpanPiece);
                buffer[..count].CopyTo(piece);
                Wait(WriteAsync(piece.AsMemory(0, count)));
                buffer = buffer[count..];
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(piece);
        }
    }

    private void CheckWrite(int count)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (!_info.CanWrite)
        {
            throw new NotSupportedException("The disk does not take writes.");
        }
        if (count > 0 && count > _info.Size - _position)
        {
            throw Failed(new NbdException(
                NbdError.NoSpace, $"{count} bytes at {_position} do not fit on a disk of {_info.Size} bytes"));
        }
    }

    /// <summary>Memory for the block that begins at an offset; the last one ends with the disk.</summary>
    private Memory<byte> BlockAt(long start)
    {
        _block ??= new byte[_blockSize];
        return _block.AsMemory(0, (int)Math.Min(_blockSize, _info.Size - start));
    }

    private static int Wait(ValueTask<int> pending)
        => pending.IsCompleted ? pending.GetAwaiter().GetResult() : pending.AsTask().GetAwaiter().GetResult();

    private static void Wait(ValueTask pending)
    {
        if (pending.IsCompleted)
        {
            pending.GetAwaiter().GetResult();
        }
        else
        {
            pending.AsTask().GetAwaiter().GetResult();
        }
    }
}
