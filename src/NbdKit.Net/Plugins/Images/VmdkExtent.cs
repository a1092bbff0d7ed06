namespace NbdKit.Plugins.Images;

/// <summary>One extent of a disk: zeroes, a range of a file as it is, or grains that a directory of tables tells of.</summary>
internal sealed class VmdkExtent
{
    private readonly MappedView? _view;
    private readonly VmdkHeader? _header;
    private readonly long _flatAt;

    /// <param name="start">Where it begins in the disk.</param>
    /// <param name="size">Its size.</param>
    /// <param name="view">The file; null for zeroes.</param>
    /// <param name="header">The header of a sparse extent; null for a flat one.</param>
    /// <param name="flatAt">Where a flat one begins in its file.</param>
    public VmdkExtent(long start, long size, MappedView? view, VmdkHeader? header, long flatAt)
    {
        Start = start;
        Size = size;
        _view = view;
        _header = header;
        _flatAt = flatAt;
    }

    public long Start { get; }

    public long Size { get; }

    public bool IsPacked => _header is { IsPacked: true };

    /// <summary>The grains of a compressed extent.</summary>
    public MappedView View => _view!;

    /// <summary>The size of a grain in bytes.</summary>
    public int GrainSize => (int)_header!.GrainSize;

    /// <summary>Finds the piece at an offset, counted from the start of the extent.</summary>
    public bool TryLocate(long offset, out MappedPiece piece, out MappedPage missing)
    {
        missing = default;
        long left = Size - offset;
        if (_header is null)
        {
            piece = _view is null
                ? MappedPiece.Hole(left)
                : new MappedPiece(MappedPieceKind.Nested, left, _view.Source, _view.Start + _flatAt + offset);
            return true;
        }
        piece = default;
        long grain = offset / _header.GrainSize;
        long table = grain / _header.TableEntries;
        long directoryAt = _header.DirectoryAt + (table * 4);
        if (!_view!.TryGet(directoryAt, 4, out ulong tableAt))
        {
            missing = new MappedPage(_view, directoryAt);
            return false;
        }
        if (tableAt == 0)
        {
            piece = MappedPiece.Hole(Math.Min(left, ((table + 1) * _header.TableEntries * _header.GrainSize) - offset));
            return true;
        }
        long entryAt = ((long)tableAt * VmdkHeader.Size) + (grain % _header.TableEntries * 4);
        if (!_view.TryGet(entryAt, 4, out ulong sector))
        {
            missing = new MappedPage(_view, entryAt);
            return false;
        }
        long inside = offset % _header.GrainSize;
        long length = Math.Min(left, _header.GrainSize - inside);
        if (sector == 0 || (sector == 1 && _header.HasZeroed))
        {
            piece = MappedPiece.Hole(length);
            return true;
        }
        long at = (long)sector * VmdkHeader.Size;
        if (_header.IsPacked)
        {
            piece = new MappedPiece(MappedPieceKind.Packed, length, _view.Source, at);
            return true;
        }
        if (!_view.Has(at + inside, length))
        {
            throw new NbdException(
                NbdError.IoError, $"the VMDK image is damaged: the grain of offset {Start + offset} is at {at}, which is not inside the image");
        }
        piece = new MappedPiece(MappedPieceKind.Data, length, _view.Source, _view.Start + at + inside);
        return true;
    }
}
