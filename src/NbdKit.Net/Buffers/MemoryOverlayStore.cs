using System.Collections.Concurrent;

namespace NbdKit.Buffers;

/// <summary>Keeps an overlay in pages of memory.</summary>
/// <remarks>
/// A page that is discarded while somebody copies from it or to it stays alive until he is done: he sees old bytes, but
/// never those of another page.
/// </remarks>
internal sealed class MemoryOverlayStore : IOverlayStore
{
    private readonly ConcurrentDictionary<long, byte[]> _pages = new();
    private readonly int _pageSize;

    /// <summary>Creates an empty store.</summary>
    /// <param name="pageSize">What is discarded in whole pages of this size is freed.</param>
    public MemoryOverlayStore(int pageSize) => _pageSize = pageSize;

    /// <summary>The number of bytes of all pages.</summary>
    public long Allocated => (long)_pages.Count * _pageSize;

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Span<byte> rest = buffer.Span;
        while (rest.Length > 0)
        {
            long page = Math.DivRem(offset, _pageSize, out long inPage);
            int count = (int)Math.Min(rest.Length, _pageSize - inPage);
            if (_pages.TryGetValue(page, out byte[]? bytes))
            {
                bytes.AsSpan((int)inPage, count).CopyTo(rest);
            }
            else
            {
                rest[..count].Clear();
            }
            rest = rest[count..];
            offset += count;
        }
        return default;
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        ReadOnlySpan<byte> rest = data.Span;
        while (rest.Length > 0)
        {
            long page = Math.DivRem(offset, _pageSize, out long inPage);
            int count = (int)Math.Min(rest.Length, _pageSize - inPage);
            if (!_pages.TryGetValue(page, out byte[]? bytes))
            {
                // Published only when it holds what is written: nobody sees a page without its bytes.
                bytes = count == _pageSize ? GC.AllocateUninitializedArray<byte>(_pageSize) : new byte[_pageSize];
                rest[..count].CopyTo(bytes.AsSpan((int)inPage));
                byte[] published = _pages.GetOrAdd(page, bytes);
                if (!ReferenceEquals(published, bytes))
                {
                    rest[..count].CopyTo(published.AsSpan((int)inPage));
                }
            }
            else
            {
                rest[..count].CopyTo(bytes.AsSpan((int)inPage));
            }
            rest = rest[count..];
            offset += count;
        }
        return default;
    }

    public void Discard(long offset, long length)
    {
        long first = (offset / _pageSize) + (offset % _pageSize == 0 ? 0 : 1);
        long end = (offset + length) / _pageSize;
        if (end - first > _pages.Count)
        {
            foreach ((long page, _) in _pages)
            {
                if (page >= first && page < end)
                {
                    _pages.TryRemove(page, out _);
                }
            }
            return;
        }
        for (long page = first; page < end; page++)
        {
            _pages.TryRemove(page, out _);
        }
    }

    public void Dispose() => _pages.Clear();
}
