using NbdKit.Layers;

namespace NbdKit.Filters.Ext2;

/// <summary>A file whose content is in blocks.</summary>
internal sealed partial class MappedFile : FileHandle
{
    // A file may be in as many pieces as it has blocks. An answer about extents may stop early; a request may not be held up
    // for long without one call to the layer below.
    private const int MostSteps = 1024;

    private readonly Volume _volume;
    private readonly Inode _inode;
    private readonly IFileMap _map;
    private readonly int _blockSize;

    public MappedFile(NbdContext context, SharedImage<Volume> image, string path, Inode inode)
        : base(context, image, path)
    {
        _volume = image.Content;
        _inode = inode;
        _map = _volume.MapOf(inode);
        _blockSize = _volume.Superblock.BlockSize;
    }

    protected override long Size => _inode.Size;

    protected override bool CanWrite => _volume.Superblock.ReadOnlyReason is null && !_inode.IsProtected;

    public override ValueTask ReadAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        ValueTask<FilePiece> found = FindAsync(offset, buffer.Length, cancellationToken);
        if (!found.IsCompletedSuccessfully)
        {
            return ReadPiecesAsync(found, buffer, offset, cancellationToken);
        }
        FilePiece piece = found.Result;
        return piece.Length == buffer.Length
            ? ReadPieceAsync(piece, buffer, cancellationToken)
            : ReadPiecesAsync(new ValueTask<FilePiece>(piece), buffer, offset, cancellationToken);
    }

    public override async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        bool? isWritten = null;
        for (int steps = 0; length > 0 && !extents.IsFull && steps < MostSteps; steps++)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (one && isWritten is { } first && first != piece.IsWritten)
            {
                break;
            }
            isWritten = piece.IsWritten;
            extents.Add(
                offset, piece.Length, piece.IsWritten ? ExtentStatus.Data : ExtentStatus.Hole | ExtentStatus.Zero);
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    public override async ValueTask CacheAsync(
        NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            FilePiece piece = await FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            if (piece.IsWritten)
            {
                await _volume.Disk.CacheAsync(piece.Place, piece.Length, cancellationToken).ConfigureAwait(false);
            }
            offset += piece.Length;
            length -= piece.Length;
        }
    }

    private async ValueTask ReadPiecesAsync(
        ValueTask<FilePiece> found, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (true)
        {
            FilePiece piece = await found.ConfigureAwait(false);
            await ReadPieceAsync(piece, buffer[..(int)piece.Length], cancellationToken).ConfigureAwait(false);
            buffer = buffer[(int)piece.Length..];
            offset += piece.Length;
            if (buffer.IsEmpty)
            {
                return;
            }
            found = FindAsync(offset, buffer.Length, cancellationToken);
        }
    }

    private ValueTask ReadPieceAsync(FilePiece piece, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (piece.IsWritten)
        {
            return _volume.Disk.ReadAsync(buffer, piece.Place, cancellationToken);
        }
        buffer.Span.Clear();
        return default;
    }

    /// <summary>Finds the piece that a range begins with, put together from as many runs as possible.</summary>
    private async ValueTask<FilePiece> FindAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long block = offset / _blockSize;
        long skip = offset % _blockSize;
        long wanted = ((skip + length - 1) / _blockSize) + 1;
        BlockRun run = await _map.FindAsync(block, wanted, cancellationToken).ConfigureAwait(false);
        long count = run.Count;
        for (int steps = 0; count < wanted && steps < MostSteps; steps++)
        {
            BlockRun more = await _map.FindAsync(block + count, wanted - count, cancellationToken).ConfigureAwait(false);
            if (more.Start != (run.IsWritten ? run.Start + count : 0))
            {
                break;
            }
            count += more.Count;
        }
        long found = count < wanted ? (count * _blockSize) - skip : length;
        return new FilePiece(found, run.IsWritten ? (run.Start * _blockSize) + skip : 0);
    }
}
