using System.Buffers;
using System.Runtime.Intrinsics;

namespace NbdKit.Plugins;

// What the disk holds.
public sealed partial class SparseRandomPlugin
{
    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (RandomContent && buffer.Length > RandomBytes.MostInline)
        {
            return ElsewhereAsync();
        }
        Read(buffer.Span, offset);
        return default;

        async ValueTask ElsewhereAsync()
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Read(buffer.Span, offset);
        }
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (RandomContent && data.Length > RandomBytes.MostInline)
        {
            return ElsewhereAsync();
        }
        Check(data.Span, offset);
        return default;

        async ValueTask ElsewhereAsync()
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Check(data.Span, offset);
        }
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => ZeroAsync(offset, length, flags, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        (bool isData, long end) = _runs.At(offset);
        return isData || end < offset + length
            ? throw new NbdException(NbdError.IoError, "the range to trim or zero is not a hole of the disk")
            : default;
    }

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        long stop = offset + length;
        while (offset < stop && !extents.IsFull && !(one && extents.Count > 0))
        {
            (bool isData, long end) = _runs.At(offset);
            end = Math.Min(end, Size);
            extents.Add(offset, end - offset, isData ? ExtentStatus.Data : ExtentStatus.Hole | ExtentStatus.Zero);
            offset = end;
        }
        return default;
    }

    private void Read(Span<byte> rest, long offset)
    {
        while (rest.Length > 0)
        {
            (bool isData, long end) = _runs.At(offset);
            int count = (int)Math.Min(end - offset, rest.Length);
            if (isData)
            {
                Fill(rest[..count], offset);
            }
            else
            {
                rest[..count].Clear();
            }
            rest = rest[count..];
            offset += count;
        }
    }

    private void Check(ReadOnlySpan<byte> rest, long offset)
    {
        byte[] due = ArrayPool<byte>.Shared.Rent(Block);
        try
        {
            while (rest.Length > 0)
            {
                (bool isData, long end) = _runs.At(offset);
                int count = (int)Math.Min(isData ? Block - (offset % Block) : end - offset, rest.Length);
                if (isData)
                {
                    Fill(due.AsSpan(0, count), offset);
                }
                if (isData ? !rest[..count].SequenceEqual(due.AsSpan(0, count)) : rest[..count].ContainsAnyExcept((byte)0))
                {
                    throw new NbdException(NbdError.IoError, "the data written is not what the disk holds");
                }
                rest = rest[count..];
                offset += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(due);
        }
    }

    private void Fill(Span<byte> buffer, long offset)
    {
        while (buffer.Length > 0)
        {
            int within = (int)(offset % Block);
            int count = Math.Min(Block - within, buffer.Length);
            const int Several = RandomBytes.BlocksAtATime * Block;
            if (RandomContent && within == 0 && buffer.Length >= Several && Vector256.IsHardwareAccelerated)
            {
                RandomBytes.FillBlocks(buffer[..Several], Seed + (ulong)offset);
                buffer = buffer[Several..];
                offset += Several;
                continue;
            }
            var random = new Xoshiro(Seed + (ulong)(offset - within));
            if (RandomContent)
            {
                for (int i = 0; i < within; i++)
                {
                    random.Next();
                }
                foreach (ref byte b in buffer[..count])
                {
                    b = (byte)random.Next();
                }
            }
            else
            {
                // Never 0, which would make data look like a hole.
                buffer[..count].Fill((byte)random.Next() is var b and not 0 ? b : (byte)1);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }
}
