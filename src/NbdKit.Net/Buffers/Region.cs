using System.Runtime.CompilerServices;

namespace NbdKit.Buffers;

/// <summary>
/// A range of a <see cref="SparseArray"/> of up to 2 MiB, in native memory, of which only the pages that were written are in
/// use. Offsets are relative to the region, and ranges inside it.
/// </summary>
/// <remarks>
/// One large piece of memory, because a disk of many small ones is slow: most of a random read of 4 KiB is the time to find the
/// bytes, which huge pages shorten, and blocks that lie across the processor's pages double. Reads, and writes into pages that
/// are in use, take no lock. What an unused page holds in memory is undefined: whoever makes it overwrites all of it.
/// </remarks>
internal sealed class Region
{
    public const int Shift = 21;
    public const int Size = 1 << Shift;
    public const int PageShift = 15;
    public const int PageSize = 1 << PageShift;

    private readonly Lock _making = new();
    private readonly NativeBlock _block;
    private readonly nint _address;
    private readonly int _length;
    private readonly bool _hasLargePages;

    // A bit for each page in use.
    private ulong _used;

    /// <param name="length">Number of bytes; less than <see cref="Size"/> only at the end of the disk.</param>
    /// <param name="willBeFull">
    /// Whether it is likely to be written as a whole soon: it takes its memory at once then, in large pages.
    /// </param>
    /// <exception cref="OutOfMemoryException">There is no memory for it.</exception>
    public Region(int length, bool willBeFull)
    {
        _length = length;
        _block = new NativeBlock(length, length == Size ? Size : 4096);
        _address = _block.Address;
        _hasLargePages = willBeFull && length == Size;
        if (_hasLargePages)
        {
            _block.UseLargePages();
        }
    }

    /// <summary>Whether all of its pages are in use.</summary>
    public bool IsFull => Used == ulong.MaxValue;

    /// <summary>A range for as long as anybody refers to it.</summary>
    public Memory<byte> MemoryOf(int offset, int count) => _block.Memory.Slice(offset, count);

    private ulong Used => Volatile.Read(ref _used);

    /// <summary>Copies bytes out; unused pages are zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Read(int offset, Span<byte> buffer)
    {
        ulong pages = PagesOf(offset, buffer.Length);
        if ((Used & pages) == pages)
        {
            At(offset, buffer.Length).CopyTo(buffer);
        }
        else
        {
            ReadSparse(offset, buffer);
        }
        GC.KeepAlive(this);
    }

    /// <summary>Stores bytes, taking pages into use as needed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        ulong pages = PagesOf(offset, data.Length);
        if ((Used & pages) == pages)
        {
            data.CopyTo(At(offset, data.Length));
        }
        else
        {
            WriteSparse(offset, data);
        }
        GC.KeepAlive(this);
    }

    /// <summary>Where a range lies, if all of its pages are in use; else 0.</summary>
    public nint AddressOf(int offset, int count)
    {
        ulong pages = PagesOf(offset, count);
        return (Used & pages) == pages ? _address + offset : 0;
    }

    /// <summary>Lets the processor fetch the bytes at an offset.</summary>
    public void Prefetch(int offset) => NativeBlock.Prefetch(_address + offset);

    /// <summary>Clears what is in use of a range.</summary>
    public void Clear(int offset, int count)
    {
        while (count > 0)
        {
            int run = RunOf(offset, count, out bool used);
            if (used)
            {
                At(offset, run).Clear();
            }
            offset += run;
            count -= run;
        }
        GC.KeepAlive(this);
    }

    /// <summary>Gives up whole pages, the short one at the end of the disk among them.</summary>
    /// <param name="first">The first of them.</param>
    /// <param name="count">How many, at least one.</param>
    public void GiveUp(int first, int count)
    {
        ulong pages = (ulong.MaxValue >> (64 - count)) << first;
        if ((Interlocked.And(ref _used, ~pages) & pages) != 0)
        {
            int start = first << PageShift;
            _block.GiveBack(start, Math.Min(count << PageShift, _length - start));
        }
    }

    /// <summary>The number of bytes from an offset on, up to a count, whose pages are all in use or are all not.</summary>
    public int RunOf(int offset, int count, out bool used)
    {
        int page = offset >> PageShift;
        ulong pages = Used >> page;
        used = (pages & 1) != 0;
        int run = System.Numerics.BitOperations.TrailingZeroCount(used ? ~pages : pages);
        return (int)Math.Min(count, ((long)(page + run) << PageShift) - offset);
    }

    private static ulong PagesOf(int offset, int count)
    {
        int first = offset >> PageShift;
        int last = (offset + count - 1) >> PageShift;
        return (ulong.MaxValue >> (63 - last + first)) << first;
    }

    private Span<byte> At(int offset, int count) => NativeBlock.SpanAt(_address + offset, count);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void ReadSparse(int offset, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int run = RunOf(offset, buffer.Length, out bool used);
            if (used)
            {
                At(offset, run).CopyTo(buffer);
            }
            else
            {
                buffer[..run].Clear();
            }
            offset += run;
            buffer = buffer[run..];
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void WriteSparse(int offset, ReadOnlySpan<byte> data)
    {
        while (data.Length > 0)
        {
            int page = offset >> PageShift;
            int within = offset & (PageSize - 1);
            int count = Math.Min(PageSize - within, data.Length);
            ulong bit = 1UL << page;
            if ((Used & bit) != 0 || !TryMake(page, bit, within, data[..count]))
            {
                data[..count].CopyTo(At(offset, count));
            }
            offset += count;
            data = data[count..];
        }
    }

    /// <summary>Takes a page into use with its first bytes; false if another writer was first.</summary>
    private bool TryMake(int page, ulong bit, int within, ReadOnlySpan<byte> data)
    {
        bool isLast;
        // Two writers of one page must not clear each other's bytes.
        lock (_making)
        {
            if ((Used & bit) != 0)
            {
                return false;
            }
            int start = page << PageShift;
            Span<byte> bytes = At(start, Math.Min(PageSize, _length - start));
            bytes[..within].Clear();
            data.CopyTo(bytes[within..]);
            bytes[(within + data.Length)..].Clear();
            isLast = (Interlocked.Or(ref _used, bit) | bit) == ulong.MaxValue;
        }
        if (isLast && !_hasLargePages)
        {
            // Takes as long as a hundred requests.
            ThreadPool.UnsafeQueueUserWorkItem(static block => block.MoveIntoLargePages(), _block, preferLocal: false);
        }
        return true;
    }
}
