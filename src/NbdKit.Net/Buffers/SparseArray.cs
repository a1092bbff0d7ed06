using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NbdKit.Buffers;

/// <summary>
/// Bytes of a disk in memory, of which only the pages that were written take space. Safe for any number of threads at
/// once, without a lock on any path.
/// </summary>
/// <remarks>
/// <para>
/// Pages hang in a tree of directories, each entry of which is empty until something below it is written. The tree is
/// as high as the size needs: one level up to 128 MiB, two up to 512 GiB, four for 2^63-1 bytes. Only the topmost
/// directory exists from the start, and it has at most 4,096 entries.
/// </para>
/// <para>
/// A page is complete before a compare-and-swap makes it visible, and nothing takes it out of the tree but a zero that
/// covers the whole of it. So requests for disjoint ranges never disturb each other, even within a page; requests that
/// overlap in range and in time may leave either's bytes. The garbage collector owns the pages: a page is never used
/// again while anybody still reads from it.
/// </para>
/// <para>Callers pass valid ranges: the layer above has checked them.</para>
/// </remarks>
internal sealed partial class SparseArray
{
    // nbdkit's page size: extents and the preferred block size come out the same. Measured between 32 KiB and 256 KiB
    // on requests of 4 KiB and 256 KiB: no difference that exceeds the noise, and even a flat array is not faster.
    public const int PageSize = 1 << PageShift;

    private const int PageShift = 15;
    private const int PageMask = PageSize - 1;
    private const int DirectoryBits = 12;
    private const int DirectoryMask = (1 << DirectoryBits) - 1;

    private readonly Slot[] _root;

    // How far a page number is shifted to get its index in the topmost directory: 0 if that holds the pages themselves.
    private readonly int _rootShift;

    /// <summary>Creates an array of zeroes.</summary>
    /// <param name="size">Number of bytes, from 0 to 2^63-1.</param>
    public SparseArray(long size)
    {
        Size = size;
        long lastPage = (size - 1) >> PageShift;
        while (lastPage >> _rootShift > DirectoryMask)
        {
            _rootShift += DirectoryBits;
        }
        _root = new Slot[(lastPage >> _rootShift) + 1];
    }

    /// <summary>Number of bytes.</summary>
    public long Size { get; }

    /// <summary>Copies a range; what was never written, or was zeroed, is zero.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="buffer">Receives the bytes.</param>
    public void Read(long offset, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int within = (int)offset & PageMask;
            int count = Math.Min(PageSize - within, buffer.Length);
            byte[]? page = Find(offset >> PageShift);
            if (page is null)
            {
                buffer[..count].Clear();
            }
            else
            {
                Within(page, within, count).CopyTo(buffer);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <summary>Stores bytes, and makes the pages for them that do not exist yet.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="data">The bytes.</param>
    /// <exception cref="NbdException">There is no memory for a page. What was stored before stays.</exception>
    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        while (data.Length > 0)
        {
            int within = (int)offset & PageMask;
            int count = Math.Min(PageSize - within, data.Length);
            byte[]? page = Find(offset >> PageShift);
            if (page is null)
            {
                Install(offset >> PageShift, within, data[..count]);
            }
            else
            {
                data[..count].CopyTo(Within(page, within, count));
            }
            data = data[count..];
            offset += count;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private byte[]? Find(long page)
    {
        Slot[] directory = _root;
        for (int shift = _rootShift; shift > 0; shift -= DirectoryBits)
        {
            object? child = Volatile.Read(ref directory[(int)(page >> shift) & DirectoryMask].Value);
            if (child is null)
            {
                return null;
            }
            directory = Unsafe.As<Slot[]>(child);
        }
        return Unsafe.As<byte[]>(Volatile.Read(ref directory[(int)page & DirectoryMask].Value));
    }

    /// <summary>
    /// Part of a page, which the caller knows to be inside. Neither here nor in <see cref="Find"/> is the array's own header
    /// looked at, for its type or its length: on a large disk that is a cache miss of its own with every request, as dear as
    /// the one for the data.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Span<byte> Within(byte[] page, int within, int count)
        => MemoryMarshal.CreateSpan(ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(page), within), count);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Install(long number, int within, ReadOnlySpan<byte> data)
    {
        try
        {
            Slot[] directory = _root;
            for (int shift = _rootShift; shift > 0; shift -= DirectoryBits)
            {
                ref object? slot = ref directory[(int)(number >> shift) & DirectoryMask].Value;
                object? child = Volatile.Read(ref slot);
                if (child is null)
                {
                    var created = new Slot[DirectoryMask + 1];
                    child = Interlocked.CompareExchange(ref slot, created, null) ?? created;
                }
                directory = (Slot[])child;
            }
            byte[] page = NewPage(number, within, data);
            object? other = Interlocked.CompareExchange(ref directory[(int)number & DirectoryMask].Value, page, null);
            if (other is not null)
            {
                data.CopyTo(((byte[])other).AsSpan(within));
            }
        }
        catch (OutOfMemoryException e)
        {
            throw new NbdException(NbdError.OutOfMemory, "no memory for another page of the disk", e);
        }
    }

    private byte[] NewPage(long number, int within, ReadOnlySpan<byte> data)
    {
        // The last page is no longer than the disk, which keeps small disks small.
        int length = (int)Math.Min(PageSize, Size - (number << PageShift));
        // Pinned arrays are never moved: elsewhere the collector would copy each young page twice.
        byte[] page = GC.AllocateUninitializedArray<byte>(length, pinned: true);
        page.AsSpan(0, within).Clear();
        data.CopyTo(page.AsSpan(within));
        page.AsSpan(within + data.Length).Clear();
        return page;
    }

    // An entry of a directory: null, a page (byte[]) in the lowest directories, a directory (Slot[]) elsewhere. A
    // structure, because taking a reference to an element of object[] costs a type check.
    private struct Slot
    {
        public object? Value;
    }
}
