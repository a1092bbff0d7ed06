namespace NbdKit.Filters.Ext2;

// Changes of content. They stay inside blocks that the file has: nothing else in the file system changes, and nothing is
// changed at all by a request that would need more.
internal sealed partial class MappedFile
{
    public override async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        FilePiece piece = await FindAsync(offset, data.Length, cancellationToken).ConfigureAwait(false);
        if (piece.Length < data.Length || !piece.IsWritten)
        {
            await RequireWrittenAsync(offset, data.Length, cancellationToken).ConfigureAwait(false);
        }
        while (true)
        {
            // Blocks of a hostile file may be part of its own map.
            int count = piece.IsWritten ? (int)piece.Length : throw NotAllocated(piece, offset);
            await _volume.Disk.WriteAsync(data[..count], piece.Place, flags, cancellationToken).ConfigureAwait(false);
            data = data[count..];
            offset += count;
            if (data.IsEmpty)
            {
                return;
            }
            piece = await FindAsync(offset, data.Length, cancellationToken).ConfigureAwait(false);
        }
    }

    public override async ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if ((flags & RequestFlags.FastZero) != 0)
        {
            await RequireOnePieceAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        while (length > 0)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (piece.IsWritten)
            {
                await _volume.Disk.ZeroAsync(piece.Place, piece.Length, flags, cancellationToken).ConfigureAwait(false);
            }
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    public override async ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (piece.IsWritten)
            {
                await _volume.Disk.TrimAsync(piece.Place, piece.Length, flags, cancellationToken).ConfigureAwait(false);
            }
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    /// <summary>
    /// Refuses a fast zero of several pieces: the layer below could refuse the second when the first is gone.
    /// </summary>
    private async ValueTask RequireOnePieceAsync(long offset, long length, CancellationToken cancellationToken)
    {
        bool found = false;
        while (length > 0)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (piece.IsWritten && found)
            {
                throw new NbdException(NbdError.NotSupported, "the range is in several places, which are not zeroed fast");
            }
            found |= piece.IsWritten;
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    private async ValueTask RequireWrittenAsync(long offset, long length, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (!piece.IsWritten)
            {
                throw NotAllocated(piece, offset);
            }
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    private static NbdException NotAllocated(FilePiece piece, long offset)
        => new(
            NbdError.NoSpace,
            $"{piece.Length} bytes at {offset} of the file are a hole, or were reserved but never written, and blocks "
            + "cannot be allocated");
}
