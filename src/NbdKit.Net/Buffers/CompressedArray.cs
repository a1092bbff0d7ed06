using System.Collections.Concurrent;

namespace NbdKit.Buffers;

/// <summary>
/// Bytes of a disk in memory, of which only the pages that were written take space, compressed but for those that were used
/// last. Safe for any number of threads at once: each page has a lock, under which it is compressed too.
/// </summary>
/// <remarks>Callers pass valid ranges: the layer above has checked them.</remarks>
internal sealed partial class CompressedArray(long size)
{
    private const int PlainPages = 256;

    // 128 MiB and 4 GiB.
    private const int FewPages = 4096;
    private const int ManyPages = 131_072;

    private readonly ConcurrentDictionary<long, CompressedPage> _pages = [];

    // The pages that are uncompressed, in the order in which they became so; one that comes pushes out the oldest.
    private readonly CompressedPage?[] _plain = new CompressedPage?[PlainPages];
    private long _next = -1;

    /// <summary>Number of bytes.</summary>
    public long Size => size;

    /// <summary>The bytes that all pages take, for tests.</summary>
    internal long Bytes => _pages.Values.Sum(page => (long)page.Bytes);

    /// <summary>Copies a range; what was never written, or was zeroed, is zero.</summary>
    public void Read(long offset, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            (long number, int within, int count) = Locate(offset, buffer.Length);
            if (_pages.TryGetValue(number, out CompressedPage? page))
            {
                bool wasPlain;
                lock (page.Lock)
                {
                    wasPlain = page.IsPlain;
                    page.Read().AsSpan(within, count).CopyTo(buffer);
                }
                Admit(page, wasPlain);
            }
            else
            {
                buffer[..count].Clear();
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <summary>Stores bytes.</summary>
    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        try
        {
            while (data.Length > 0)
            {
                (long number, int within, int count) = Locate(offset, data.Length);
                CompressedPage page = _pages.GetOrAdd(number, _ => new CompressedPage());
                bool wasPlain;
                lock (page.Lock)
                {
                    if (page.IsGone)
                    {
                        continue;
                    }
                    wasPlain = page.IsPlain;
                    data[..count].CopyTo(page.Change().AsSpan(within));
                }
                Admit(page, wasPlain);
                data = data[count..];
                offset += count;
            }
        }
        catch (OutOfMemoryException e)
        {
            throw new NbdException(NbdError.OutOfMemory, "no memory for another page of the disk", e);
        }
    }

    /// <summary>Makes a range zero; pages that it covers as a whole go, unless they are to be kept.</summary>
    public void Zero(long offset, long length, bool keepPages)
    {
        long end = offset + length;
        foreach (long number in Numbers(offset, length))
        {
            if (!_pages.TryGetValue(number, out CompressedPage? page))
            {
                continue;
            }
            long start = number * CompressedPage.Size;
            int from = (int)Math.Max(0, offset - start);
            int to = (int)Math.Min(CompressedPage.Size, end - start);
            bool isWhole = from == 0 && (to == CompressedPage.Size || end == Size);
            bool wasPlain;
            lock (page.Lock)
            {
                wasPlain = page.IsPlain;
                if (isWhole && !keepPages)
                {
                    page.IsGone = true;
                    _pages.TryRemove(KeyValuePair.Create(number, page));
                    continue;
                }
                page.Change().AsSpan(from, to - from).Clear();
            }
            Admit(page, wasPlain);
        }
    }

    /// <summary>Reports what of a range has pages, and what has none and is zero.</summary>
    public void GetExtents(long offset, long length, bool onlyFirst, ExtentList extents)
    {
        // An answer may stop early. What is near is looked up page by page; where a long hole ends is looked for among all pages.
        long end = offset + length;
        long first = offset / CompressedPage.Size;
        long last = (end - 1) / CompressedPage.Size;
        long near = Math.Min(last, first + (onlyFirst ? FewPages : ManyPages));
        long at = offset;
        foreach (long number in Range(first, near))
        {
            if (extents.IsFull || (onlyFirst && extents.Count > 1))
            {
                return;
            }
            if (_pages.ContainsKey(number))
            {
                long start = Math.Max(at, number * CompressedPage.Size);
                if (start > at)
                {
                    extents.Add(at, start - at, ExtentStatus.Hole | ExtentStatus.Zero);
                }
                at = Math.Min(end - start, CompressedPage.Size - (start % CompressedPage.Size)) + start;
                extents.Add(start, at - start, ExtentStatus.Data);
            }
        }
        if (at == offset && near < last)
        {
            near = _pages.Select(page => page.Key).Where(number => number > near && number <= last).DefaultIfEmpty(last + 1).Min() - 1;
        }
        long to = near == last ? end : (near + 1) * CompressedPage.Size;
        if (at < to && !extents.IsFull)
        {
            extents.Add(at, to - at, ExtentStatus.Hole | ExtentStatus.Zero);
        }
    }

    private static (long Number, int Within, int Count) Locate(long offset, int length)
    {
        int within = (int)(offset % CompressedPage.Size);
        return (offset / CompressedPage.Size, within, Math.Min(CompressedPage.Size - within, length));
    }

    /// <summary>The numbers of the pages that a range may have, in order: all there are, or those that exist if these are fewer.</summary>
    private IEnumerable<long> Numbers(long offset, long length)
    {
        long first = offset / CompressedPage.Size;
        long last = (offset + length - 1) / CompressedPage.Size;
        if (last - first > _pages.Count)
        {
            return _pages.Keys.Where(number => number >= first && number <= last).Order();
        }
        return Range(first, last);
    }

    private static IEnumerable<long> Range(long first, long last)
    {
        for (long number = first; number <= last; number++)
        {
            yield return number;
        }
    }

    /// <summary>Gives a page that has just been uncompressed its place, and compresses the one that was there.</summary>
    private void Admit(CompressedPage page, bool wasPlain)
    {
        if (wasPlain)
        {
            return;
        }
        int place = (int)(Interlocked.Increment(ref _next) % PlainPages);
        if (Interlocked.Exchange(ref _plain[place], page) is { } old && old != page)
        {
            // No other page is locked now, so nobody waits for another in a circle.
            lock (old.Lock)
            {
                old.Pack();
            }
        }
    }
}
