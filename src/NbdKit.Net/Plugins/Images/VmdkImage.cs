namespace NbdKit.Plugins.Images;

/// <summary>A disk in VMware's format: one or several extents in a row.</summary>
internal sealed class VmdkImage : MappedImage
{
    private const int LargestDescriptor = 1 << 20;
    private const int MostFiles = 512;

    private readonly List<VmdkExtent> _extents = [];
    private readonly VmdkGrains _grains = new();
    private readonly Func<string, CancellationToken, ValueTask<MappedView>>? _resolve;
    private readonly Dictionary<string, MappedView> _files = new(StringComparer.Ordinal);
    private long _size;

    private VmdkImage(Func<string, CancellationToken, ValueTask<MappedView>>? resolve) => _resolve = resolve;

    public override long Size => _size;

    public override bool IsPacked => _extents.Exists(extent => extent.IsPacked);

    /// <summary>Whether a beginning is that of an image, or of a descriptor.</summary>
    public static bool IsKnown(ReadOnlySpan<byte> start)
        => start.StartsWith(VmdkHeader.Magic) || start.StartsWith(VmdkDescriptor.Start);

    /// <summary>Opens an image.</summary>
    /// <param name="view">The image, or the descriptor of several files.</param>
    /// <param name="resolve">Opens a file by its name in the descriptor; null if there can be none.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The image is damaged, or of a kind that is not read (EINVAL).</exception>
    public static async ValueTask<VmdkImage> OpenAsync(
        MappedView view, Func<string, CancellationToken, ValueTask<MappedView>>? resolve, CancellationToken cancellationToken)
    {
        var image = new VmdkImage(resolve);
        byte[] start = new byte[Math.Min(VmdkHeader.Size, view.Size)];
        await view.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
        if (start.AsSpan().StartsWith(VmdkHeader.Magic))
        {
            await image.OpenSparseAsync(view, cancellationToken).ConfigureAwait(false);
        }
        else if (start.AsSpan().StartsWith(VmdkDescriptor.Start))
        {
            byte[] text = new byte[Math.Min(LargestDescriptor, view.Size)];
            await view.ReadAsync(0, text, cancellationToken).ConfigureAwait(false);
            await image.AddAllAsync(VmdkDescriptor.Parse(text), cancellationToken).ConfigureAwait(false);
        }
        else
        {
            bool isOther = start.AsSpan().StartsWith("COWD"u8) || start.AsSpan().StartsWith((ReadOnlySpan<byte>)[0xBE, 0xBA, 0xFE, 0xCA]);
            throw new NbdException(
                NbdError.InvalidArgument,
                isOther ? "this is a sparse extent of ESX (COWD or SESparse), which is not read" : "this is not a VMDK image");
        }
        return image;
    }

    public override bool TryLocate(long offset, out MappedPiece piece, out MappedPage missing)
    {
        VmdkExtent extent = ExtentAt(offset);
        return extent.TryLocate(offset - extent.Start, out piece, out missing);
    }

    public override ValueTask UnpackAsync(
        MappedPiece piece, long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        VmdkExtent extent = ExtentAt(offset);
        return _grains.ReadAsync(extent, piece.Position, offset - extent.Start, buffer, cancellationToken);
    }

    private async ValueTask OpenSparseAsync(MappedView view, CancellationToken cancellationToken)
    {
        VmdkHeader header = await VmdkHeader.ReadAsync(view, cancellationToken).ConfigureAwait(false);
        VmdkDescriptor? descriptor = null;
        if (header.DescriptorAt > 0)
        {
            byte[] text = new byte[header.DescriptorSize];
            await view.ReadAsync(header.DescriptorAt, text, cancellationToken).ConfigureAwait(false);
            descriptor = VmdkDescriptor.Parse(text);
        }
        if (header.Capacity > 0)
        {
            Add(new VmdkExtent(0, header.Capacity, view, header, 0));
        }
        else
        {
            // Nothing but a place for a descriptor.
            await AddAllAsync(descriptor ?? throw VmdkHeader.Damaged("it has neither a size nor a descriptor"), cancellationToken)
                .ConfigureAwait(false);
        }
    }

    private async ValueTask AddAllAsync(VmdkDescriptor descriptor, CancellationToken cancellationToken)
    {
        if (descriptor.Extents.Count == 0)
        {
            throw VmdkHeader.Damaged("its descriptor has no extents");
        }
        foreach (VmdkExtentLine line in descriptor.Extents)
        {
            if (line.Size > long.MaxValue - _size)
            {
                throw VmdkHeader.Damaged("its extents are more than 2^63-1 bytes in all");
            }
            if (!line.CanRead || line.Kind is not ("FLAT" or "SPARSE" or "ZERO" or "VMFS"))
            {
                throw new NbdException(
                    NbdError.InvalidArgument,
                    $"extent {_extents.Count + 1} of the VMDK image ({descriptor.Kind}) is of a kind that is not read, or may not be read");
            }
            Add(await OpenAsync(line, cancellationToken).ConfigureAwait(false));
        }
    }

    private async ValueTask<VmdkExtent> OpenAsync(VmdkExtentLine line, CancellationToken cancellationToken)
    {
        if (line.Kind == "ZERO")
        {
            return new VmdkExtent(_size, line.Size, null, null, 0);
        }
        if (_resolve is null)
        {
            throw new NbdException(NbdError.InvalidArgument, "the VMDK image has its extents in other files, which were not given");
        }
        // Several extents may be in one file, and whoever wrote the descriptor must not take up all handles of the process.
        if (!_files.TryGetValue(line.File, out MappedView? view))
        {
            if (_files.Count == MostFiles)
            {
                throw VmdkHeader.Damaged($"its extents are in more than {MostFiles} files");
            }
            view = await _resolve(line.File, cancellationToken).ConfigureAwait(false);
            _files.Add(line.File, view);
        }
        VmdkHeader? header = line.Kind == "SPARSE" ? await VmdkHeader.ReadAsync(view, cancellationToken).ConfigureAwait(false) : null;
        if (header is null ? !view.Has(line.Offset, line.Size) : header.Capacity < line.Size)
        {
            throw VmdkHeader.Damaged($"its extent {_extents.Count + 1} has {line.Size} bytes, and its file is smaller");
        }
        return new VmdkExtent(_size, line.Size, view, header, line.Offset);
    }

    private void Add(VmdkExtent extent)
    {
        _extents.Add(extent);
        _size += extent.Size;
    }

    private VmdkExtent ExtentAt(long offset)
    {
        int low = 0;
        int high = _extents.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) >>> 1;
            (low, high) = _extents[middle].Start <= offset ? (middle, high) : (low, middle - 1);
        }
        return _extents[low];
    }
}
