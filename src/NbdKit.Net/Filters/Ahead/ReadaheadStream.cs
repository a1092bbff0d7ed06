using System.Runtime.CompilerServices;

namespace NbdKit.Filters.Ahead;

/// <summary>One connection's reads: follows them, reads ahead of them, and serves them from what was read.</summary>
/// <remarks>
/// The chunks, in order of their offsets, are guarded by the group's lock, which is never held while anything is read or
/// copied. A chunk that is taken out of the list is seen by no read that begins later.
/// </remarks>
internal sealed partial class ReadaheadStream
{
    /// <summary>What is read ahead first.</summary>
    public const int SmallestWindow = 32 << 10;

    private const int ChunkBytes = 512 << 10;
    private const int MostMisses = 4;

    private readonly ReadaheadGroup _group;
    private readonly NextContext _next;
    private readonly long _maxWindow;
    private readonly List<ReadaheadChunk> _chunks = [];

    // Where the stream has come to, and where another one would go on that may have begun.
    private long _position = -1;
    private long _candidate = -1;
    private long _ahead;
    private long _window;
    private int _misses;

    /// <param name="group">The streams of the same export.</param>
    /// <param name="next">Serves the reads.</param>
    /// <param name="open">Opens a context to read ahead with; null to do that with <paramref name="next"/>.</param>
    /// <param name="maxWindow">How far to read ahead at most.</param>
    public ReadaheadStream(
        ReadaheadGroup group, NextContext next, Func<CancellationToken, ValueTask<NextContext>>? open, long maxWindow)
    {
        _group = group;
        _next = next;
        _open = open;
        _maxWindow = Math.Max(maxWindow, next.Info.BlockSize.Minimum);
        group.Add(this);
    }

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long end = offset + buffer.Length;
        ReadaheadChunk? chunk;
        long nextChunk;
        lock (_group.Lock)
        {
            chunk = Take(offset, out nextChunk);
            Follow(offset, end, chunk is not null);
        }
        if (chunk is null && nextChunk >= end)
        {
            return _next.ReadAsync(buffer, offset, cancellationToken);
        }
        if (chunk is not null && end <= chunk.End && chunk.IsFilled)
        {
            chunk.Memory.Span.Slice((int)(offset - chunk.Offset), buffer.Length).CopyTo(buffer.Span);
            chunk.LetGo();
            return default;
        }
        return ReadChunksAsync(chunk, nextChunk, buffer, offset, cancellationToken);
    }

    /// <summary>Forgets what was read of a range; the caller holds the lock.</summary>
    public void Forget(long offset, long end)
    {
        for (int i = _chunks.Count - 1; i >= 0; i--)
        {
            if (_chunks[i].Offset < end && offset < _chunks[i].End)
            {
                _chunks[i].LetGo();
                _chunks.RemoveAt(i);
            }
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadChunksAsync(
        ReadaheadChunk? chunk, long nextChunk, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (true)
        {
            int count = (int)Math.Min(buffer.Length, (chunk?.End ?? nextChunk) - offset);
            await ReadPartAsync(chunk, buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            buffer = buffer[count..];
            offset += count;
            if (buffer.Length == 0)
            {
                return;
            }
            lock (_group.Lock)
            {
                chunk = Take(offset, out nextChunk);
            }
        }
    }

    private async ValueTask ReadPartAsync(
        ReadaheadChunk? chunk, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (chunk is not null)
        {
            try
            {
                if (await chunk.Filled.WaitAsync(cancellationToken).ConfigureAwait(false))
                {
                    chunk.Memory.Slice((int)(offset - chunk.Offset), buffer.Length).CopyTo(buffer);
                    return;
                }
            }
            finally
            {
                chunk.LetGo();
            }
        }
        await _next.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Takes hold of the chunk that has a byte, or says where the next one begins.</summary>
    private ReadaheadChunk? Take(long offset, out long nextChunk)
    {
        nextChunk = long.MaxValue;
        foreach (ReadaheadChunk chunk in _chunks)
        {
            if (chunk.Offset > offset)
            {
                nextChunk = chunk.Offset;
                return null;
            }
            if (offset < chunk.End)
            {
                chunk.Hold();
                return chunk;
            }
        }
        return null;
    }

    private void Follow(long offset, long end, bool isHit)
    {
        if (offset == _position || isHit)
        {
            if (end <= _position)
            {
                return;
            }
            _position = end;
            _window = Math.Min(_maxWindow, Math.Max(2 * _window, FirstWindow));
        }
        else if (offset == _candidate)
        {
            Forget(0, long.MaxValue);
            _position = end;
            _candidate = -1;
            _window = FirstWindow;
            _ahead = end;
        }
        else
        {
            // A few reads elsewhere do not end a stream, but make it less sure of itself.
            _candidate = end;
            _window = Math.Max(_window / 2, Math.Min(_window, FirstWindow));
            if (++_misses > MostMisses)
            {
                _window = 0;
                _position = -1;
                Forget(0, long.MaxValue);
            }
            return;
        }
        _misses = 0;
        // One chunk behind stays, for reads that come out of order.
        while (_chunks.Count > 0 && _chunks[0].End < _position - ChunkBytes)
        {
            _chunks[0].LetGo();
            _chunks.RemoveAt(0);
        }
        ReadAhead();
    }

    private long FirstWindow => Math.Max(SmallestWindow, _next.Info.BlockSize.Minimum);
}
