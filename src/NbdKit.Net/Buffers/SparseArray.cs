using System.Runtime.CompilerServices;

namespace NbdKit.Buffers;

/// <summary>
/// Bytes of a disk in memory, of which only the pages that were written take space. Safe for any number of threads at
/// once, without a lock on any path.
/// </summary>
/// <remarks>
/// <para>
/// Regions of 2 MiB hang in a tree of directories, each entry of which is empty until something below it is written. The tree
/// is as high as the size needs: one level up to 8 GiB, two up to 32 TiB, four for 2^63-1 bytes. Only the topmost directory
/// exists from the start, and it has at most 4,096 entries.
/// </para>
/// <para>
/// A directory or region is complete before a compare-and-swap makes it visible, and nothing takes it out of the tree but a
/// zero that covers the whole of it. So requests for disjoint ranges never disturb each other, even within a page; requests
/// that overlap in range and in time may leave either's bytes. The garbage collector owns the memory: it is never used for
/// anything else while anybody still reads from it.
/// </para>
/// <para>Callers pass valid ranges: the layer above has checked them.</para>
/// </remarks>
internal sealed partial class SparseArray
{
    /// <summary>
    /// The grain in which space is taken: nbdkit's, so that extents and the preferred block size come out the same.
    /// </summary>
    public const int PageSize = Region.PageSize;

    // Copying programs write as much at once, and hardly anybody else: up to seven times as much memory as is written may be
    // taken ahead of need, until the rest is written.
    private const int FillingWrite = Region.Size / 8;

    private const int DirectoryBits = 12;
    private const int DirectoryMask = (1 << DirectoryBits) - 1;

    private readonly Slot[] _root;

    // How far a region's number is shifted to get its index in the topmost directory: 0 if that holds the regions themselves.
    private readonly int _rootShift;

    /// <summary>Creates an array of zeroes.</summary>
    /// <param name="size">Number of bytes, from 0 to 2^63-1.</param>
    public SparseArray(long size)
    {
        Size = size;
        long last = (size - 1) >> Region.Shift;
        while (last >> _rootShift > DirectoryMask)
        {
            _rootShift += DirectoryBits;
        }
        _root = new Slot[(last >> _rootShift) + 1];
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
            int within = (int)offset & (Region.Size - 1);
            int count = Math.Min(Region.Size - within, buffer.Length);
            if (Find(offset >> Region.Shift) is { } region)
            {
                region.Read(within, buffer[..count]);
            }
            else
            {
                buffer[..count].Clear();
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
        try
        {
            while (data.Length > 0)
            {
                int within = (int)offset & (Region.Size - 1);
                int count = Math.Min(Region.Size - within, data.Length);
                Region region = Find(offset >> Region.Shift) ?? Make(offset >> Region.Shift, count);
                region.Write(within, data[..count]);
                data = data[count..];
                offset += count;
            }
        }
        catch (OutOfMemoryException e)
        {
            throw new NbdException(NbdError.OutOfMemory, "no memory for another page of the disk", e);
        }
    }

    /// <summary>
    /// What the entry of a region holds. Its type is not checked, which would be a cache miss of its own with every request.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Region? Find(long number)
    {
        Slot[] directory = _root;
        for (int shift = _rootShift; shift > 0; shift -= DirectoryBits)
        {
            object? child = Volatile.Read(ref directory[(int)(number >> shift) & DirectoryMask].Value);
            if (child is null)
            {
                return null;
            }
            directory = Unsafe.As<Slot[]>(child);
        }
        return Unsafe.As<Region>(Volatile.Read(ref directory[(int)number & DirectoryMask].Value));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private Region Make(long number, int firstWrite)
    {
        // Who writes much at once, or has filled the region before this one, is about to fill it.
        bool willBeFull = firstWrite >= FillingWrite || (number > 0 && Find(number - 1) is { IsFull: true });
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
        // The last region is no longer than the disk, which keeps small disks small.
        var region = new Region((int)Math.Min(Region.Size, Size - (number << Region.Shift)), willBeFull);
        return (Region?)Interlocked.CompareExchange(ref directory[(int)number & DirectoryMask].Value, region, null) ?? region;
    }

    // An entry of a directory: null, a region in the lowest directories, a directory (Slot[]) elsewhere. A
    // structure, because taking a reference to an element of object[] costs a type check.
    private struct Slot
    {
        public object? Value;
    }
}
