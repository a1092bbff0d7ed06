namespace NbdKit.Plugins.Images;

/// <summary>
/// A disk in Microsoft's format. Its block table has an entry of 8 bytes for each block, the state in the lowest 3 bits, the
/// place in MiB from bit 20 on; after the entries of each 2^23 sectors comes one for a bitmap of 1 MiB, which tells which of
/// these sectors are here and not in the parent ("VHDX Format Specification", 2.5).
/// </summary>
internal sealed class VhdxImage : MappedImage
{
    private const long BitmapSectors = 1L << 23;
    private const long Mebibyte = 1 << 20;
    private const int Undefined = 1;
    private const int Zero = 2;
    private const int Unmapped = 3;
    private const int Present = 6;
    private const int PartlyPresent = 7;

    private readonly MappedView _view;
    private readonly VhdxMetadata _metadata;
    private readonly NextContext? _parent;
    private readonly long _table;
    private readonly long _ratio;

    private VhdxImage(MappedView view, VhdxHeader header, VhdxMetadata metadata, long table, NextContext? parent)
    {
        DataId = header.DataId;
        _view = view;
        _metadata = metadata;
        _table = table;
        _parent = parent;
        _ratio = BitmapSectors * metadata.SectorSize / metadata.BlockSize;
    }

    public override long Size => _metadata.DiskSize;

    /// <summary>What children know the disk by.</summary>
    public Guid DataId { get; }

    /// <summary>Opens an image.</summary>
    /// <param name="view">The image.</param>
    /// <param name="openParent">Opens the parent, if the image needs one; null if there is none.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The image is damaged, or not of a kind that is read (EINVAL).</exception>
    public static async ValueTask<VhdxImage> OpenAsync(
        MappedView view, Func<CancellationToken, ValueTask<MappedView>>? openParent, CancellationToken cancellationToken)
    {
        VhdxHeader header = await VhdxHeader.ReadAsync(view, cancellationToken).ConfigureAwait(false);
        if (header.IsDirty)
        {
            await VhdxLog.ReplayAsync(view, header, cancellationToken).ConfigureAwait(false);
        }
        VhdxRegions regions = await VhdxRegions.ReadAsync(view, cancellationToken).ConfigureAwait(false);
        VhdxMetadata metadata = await VhdxMetadata.ReadAsync(view, regions, cancellationToken).ConfigureAwait(false);
        if (metadata.HasParent && openParent is null)
        {
            string name = metadata.Parent is { Path.Length: > 0 } named ? $" '{named.Path}'" : "";
            throw new NbdException(NbdError.InvalidArgument, $"the VHDX image holds only the changes to its parent{name}, which was not given");
        }
        MappedView? parent = metadata.HasParent ? await openParent!(cancellationToken).ConfigureAwait(false) : null;
        CheckParent(metadata, parent);
        var image = new VhdxImage(view, header, metadata, regions.BlocksAt, parent?.Source);
        long last = (metadata.DiskSize - 1) / metadata.BlockSize;
        long entries = metadata.HasParent ? (last / image._ratio + 1) * (image._ratio + 1) : image.EntryOf(last) + 1;
        return entries <= regions.BlocksLength / sizeof(ulong)
            ? image
            : throw VhdxRegions.Damaged($"its block table has no room for {entries} entries");
    }

    public override bool TryLocate(long offset, out MappedPiece piece, out MappedPage missing)
    {
        piece = default;
        missing = default;
        long block = offset / _metadata.BlockSize;
        long inside = offset % _metadata.BlockSize;
        long length = Math.Min(_metadata.BlockSize - inside, Size - offset);
        long entryAt = _table + (EntryOf(block) * sizeof(ulong));
        if (!_view.TryGet(entryAt, sizeof(ulong), out ulong entry))
        {
            missing = new MappedPage(_view, entryAt);
            return false;
        }
        int state = (int)(entry & 7);
        switch (state)
        {
            case 0 when _parent is not null:
                piece = FromParent(offset, length);
                return true;
            case 0 or Undefined or Zero or Unmapped:
                piece = MappedPiece.Hole(length);
                return true;
            case Present:
                piece = Here(offset, entry, inside, length);
                return true;
            case PartlyPresent when _parent is not null:
                return TryLocateSectors(offset, entry, inside, length, out piece, out missing);
            default:
                throw Damaged(offset, $"has the state {state}");
        }
    }

    /// <summary>Finds how many sectors from an offset on are here, or in the parent, as the bitmap says.</summary>
    private bool TryLocateSectors(
        long offset, ulong entry, long inside, long length, out MappedPiece piece, out MappedPage missing)
    {
        piece = default;
        missing = default;
        long chunk = offset / _metadata.BlockSize / _ratio;
        long bitmapEntryAt = _table + (((chunk * (_ratio + 1)) + _ratio) * sizeof(ulong));
        if (!_view.TryGet(bitmapEntryAt, sizeof(ulong), out ulong bitmapEntry))
        {
            missing = new MappedPage(_view, bitmapEntryAt);
            return false;
        }
        if ((bitmapEntry & 7) != Present)
        {
            throw Damaged(offset, "is there in part, and there is no bitmap of its sectors");
        }
        long bitmapAt = PlaceOf(offset, bitmapEntry, Mebibyte);
        long sector = offset / _metadata.SectorSize % BitmapSectors;
        long wordAt = bitmapAt + (sector / 64 * sizeof(ulong));
        if (!_view.TryGet(wordAt, sizeof(ulong), out ulong word))
        {
            missing = new MappedPage(_view, wordAt);
            return false;
        }
        // The sectors of one word at a time: pieces that go on are joined by the caller.
        int bit = (int)(sector % 64);
        bool isHere = (word >> bit & 1) != 0;
        int count = 1;
        while (bit + count < 64 && (word >> (bit + count) & 1) != 0 == isHere)
        {
            count++;
        }
        length = Math.Min(length, (count * _metadata.SectorSize) - (offset % _metadata.SectorSize));
        piece = isHere ? Here(offset, entry, inside, length) : FromParent(offset, length);
        return true;
    }

    public override ValueTask UnpackAsync(
        MappedPiece piece, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        _view.Overlay!.Apply(piece.Position, buffer.Span);
        return default;
    }

    private static void CheckParent(VhdxMetadata metadata, MappedView? parent)
    {
        // Any disk may stand for the parent; but a disk with an identity must be the right one.
        if (parent?.Source.PluginHandle is MappedHandle { Image: VhdxImage { DataId: var id } } && parent.Source.Backend.Plugin is VhdxPlugin
            && metadata.Parent?.DataIds.Contains(id) != true)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the VHDX image holds the changes to '{metadata.Parent?.Path}' with the data id "
                + $"{string.Join(" or ", metadata.Parent?.DataIds ?? [])}; the parent that was given has {id}");
        }
    }

    private MappedPiece Here(long offset, ulong entry, long inside, long length)
    {
        // A fixed image has all its blocks; which of them are holes is up to the file.
        MappedPieceKind kind = _metadata.IsFixed ? MappedPieceKind.Nested : MappedPieceKind.Data;
        long position = PlaceOf(offset, entry, inside + length) + inside;
        if (_view.Overlay is { } overlay)
        {
            VhdxChange change = overlay.At(position, out bool isChange);
            length = Math.Min(length, change.End - position);
            if (isChange)
            {
                return change.Data is null ? MappedPiece.Hole(length) : new MappedPiece(MappedPieceKind.Packed, length, null, position);
            }
            // The file is to be longer than it is.
            if (position >= _view.FileSize)
            {
                return MappedPiece.Hole(length);
            }
            length = Math.Min(length, _view.FileSize - position);
        }
        return new MappedPiece(kind, length, _view.Source, _view.Start + position);
    }

    private MappedPiece FromParent(long offset, long length)
    {
        // A disk may have grown since it left its parent.
        long left = _parent!.Info.Size - offset;
        return left <= 0
            ? MappedPiece.Hole(length)
            : new MappedPiece(MappedPieceKind.Nested, Math.Min(length, left), _parent, offset);
    }

    private long PlaceOf(long offset, ulong entry, long length)
    {
        ulong mebibytes = entry >> 20;
        return mebibytes > 0 && mebibytes <= long.MaxValue / Mebibyte && _view.Has((long)mebibytes * Mebibyte, length)
            ? (long)mebibytes * Mebibyte
            : throw Damaged(offset, $"is at {mebibytes} MiB, which is not inside the image");
    }

    private long EntryOf(long block) => block + (block / _ratio);

    private NbdException Damaged(long offset, string what)
        => new(NbdError.IoError, $"the VHDX image is damaged: the block of offset {offset} {what}");
}
