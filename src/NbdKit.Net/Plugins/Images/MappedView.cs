using NbdKit.Filters.Partition;

namespace NbdKit.Plugins.Images;

/// <summary>A range of a chain that holds an image, or a part of one. Its tables are read page by page, when they are needed.</summary>
internal sealed class MappedView
{
    private readonly MappedPages _pages;
    private readonly SectorReader _reader;

    /// <param name="source">The opened chain.</param>
    /// <param name="start">Where the image begins in it: a multiple of 512.</param>
    /// <param name="size">The size of the image.</param>
    /// <param name="pages">The pages of the whole disk.</param>
    /// <param name="id">Tells the parts of one disk apart.</param>
    /// <exception cref="NbdException">The chain's blocks are too large.</exception>
    public MappedView(NextContext source, long start, long size, MappedPages pages, int id)
    {
        if (source.Info.BlockSize.Minimum > 512)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the image is in {source.Backend.Name}, which takes blocks of {source.Info.BlockSize.Minimum} bytes and not of 512; "
                + "put the blocksize filter over it");
        }
        Source = source;
        Start = start;
        Size = size;
        FileSize = size;
        Id = id;
        _pages = pages;
        _reader = new SectorReader(source, 1);
    }

    public NextContext Source { get; }

    public long Start { get; }

    /// <summary>The size of the image, with its changes.</summary>
    public long Size { get; private set; }

    /// <summary>How much of it there is in the chain.</summary>
    public long FileSize { get; }

    /// <summary>What has changed, but is not in place; null if all is.</summary>
    public VhdxOverlay? Overlay { get; private set; }

    public int Id { get; }

    /// <summary>From now on shows an image with changes, which may make it longer. Called before anything of them is looked at.</summary>
    public void Change(VhdxOverlay overlay, long size)
    {
        Overlay = overlay;
        Size = Math.Max(Size, size);
    }

    /// <summary>Whether a range is inside the image.</summary>
    public bool Has(long position, long length) => position >= 0 && length >= 0 && position <= Size && length <= Size - position;

    /// <summary>Fills a buffer from any position; fails with EIO if the image does not have all of it.</summary>
    public ValueTask ReadAsync(long position, Memory<byte> buffer, CancellationToken cancellationToken)
        => !Has(position, buffer.Length) ? throw Outside(position, buffer.Length)
            : Overlay is null ? _reader.ReadAsync(Start + position, buffer, cancellationToken)
            : ReadChangedAsync(position, buffer, cancellationToken);

    /// <summary>A number of a table, if its page is there.</summary>
    /// <param name="position">Where it is: a multiple of its size.</param>
    /// <param name="size">4 or 8 bytes, little endian.</param>
    /// <param name="value">The number.</param>
    public bool TryGet(long position, int size, out ulong value)
    {
        value = 0;
        if (!_pages.TryGet(this, position / MappedPages.PageSize, out ReadOnlySpan<byte> page))
        {
            return false;
        }
        ReadOnlySpan<byte> bytes = page[(int)(position % MappedPages.PageSize)..];
        if (bytes.Length < size)
        {
            throw Outside(position, size);
        }
        value = size == 8 ? BitConverter.ToUInt64(bytes) : BitConverter.ToUInt32(bytes);
        return true;
    }

    /// <summary>Reads the page around a position.</summary>
    public async ValueTask LoadAsync(long position, CancellationToken cancellationToken)
    {
        long start = position / MappedPages.PageSize * MappedPages.PageSize;
        byte[] page = new byte[Has(position, 1) ? Math.Min(MappedPages.PageSize, Size - start) : throw Outside(position, 1)];
        await ReadAsync(start, page, cancellationToken).ConfigureAwait(false);
        _pages.Put(this, start / MappedPages.PageSize, page);
    }

    private async ValueTask ReadChangedAsync(long position, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        int there = (int)Math.Clamp(FileSize - position, 0, buffer.Length);
        await _reader.ReadAsync(Start + position, buffer[..there], cancellationToken).ConfigureAwait(false);
        buffer.Span[there..].Clear();
        Overlay!.Apply(position, buffer.Span);
    }

    private NbdException Outside(long position, long length)
        => new(NbdError.IoError, $"the image is damaged: {length} bytes at {position} are not inside its {Size} bytes");
}
