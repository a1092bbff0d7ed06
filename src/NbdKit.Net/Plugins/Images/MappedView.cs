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
        Id = id;
        _pages = pages;
        _reader = new SectorReader(source, 1);
    }

    public NextContext Source { get; }

    public long Start { get; }

    public long Size { get; }

    public int Id { get; }

    /// <summary>Whether a range is inside the image.</summary>
    public bool Has(long position, long length) => position >= 0 && length >= 0 && position <= Size && length <= Size - position;

    /// <summary>Fills a buffer from any position; fails with EIO if the image does not have all of it.</summary>
    public ValueTask ReadAsync(long position, Memory<byte> buffer, CancellationToken cancellationToken)
        => Has(position, buffer.Length) ? _reader.ReadAsync(Start + position, buffer, cancellationToken) : throw Outside(position, buffer.Length);

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

    private NbdException Outside(long position, long length)
        => new(NbdError.IoError, $"the image is damaged: {length} bytes at {position} are not inside its {Size} bytes");
}
