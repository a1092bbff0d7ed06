namespace NbdKit.Layers;

/// <summary>The tables of one image, read in pages, which a cache keeps.</summary>
internal sealed class TablePages : IBlockSource
{
    private const int SmallestPage = 4096;
    private const int LargestPage = 65_536;

    private readonly ImageDisk _file;
    private readonly BlockCache _cache;

    public TablePages(ImageDisk file, BlockCache cache, int clusterSize)
    {
        _file = file;
        _cache = cache;
        // Usually one page is one table.
        PageSize = Math.Clamp(clusterSize, SmallestPage, LargestPage);
    }

    public int PageSize { get; }

    /// <summary>The page that has a byte of the image; only the last one of an image may be short.</summary>
    public ValueTask<byte[]> GetAsync(long offset, CancellationToken cancellationToken)
        => _cache.GetAsync(this, offset / PageSize, cancellationToken);

    async ValueTask<byte[]> IBlockSource.LoadAsync(long position, CancellationToken cancellationToken)
    {
        long start = position * PageSize;
        byte[] page = new byte[(int)Math.Min(PageSize, _file.Size - start)];
        await _file.ReadAsync(page, start, cancellationToken).ConfigureAwait(false);
        return page;
    }

    /// <summary>Fills a buffer from anywhere in the image; the caller has checked that the range is there.</summary>
    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            byte[] page = await GetAsync(offset, cancellationToken).ConfigureAwait(false);
            int at = (int)(offset % PageSize);
            int count = Math.Min(buffer.Length, page.Length - at);
            page.AsMemory(at, count).CopyTo(buffer);
            buffer = buffer[count..];
            offset += count;
        }
    }
}
