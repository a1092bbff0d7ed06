using System.Runtime.CompilerServices;
using System.Runtime.ConstrainedExecution;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using NbdKit.Native;

namespace NbdKit.Buffers;

/// <summary>
/// Memory outside of the managed heap, which never moves and lies as the processor likes it. Freed when nothing refers to the
/// block any more: who uses the address keeps the block alive meanwhile.
/// </summary>
/// <remarks>
/// The garbage collector, not a counter, decides when nobody can look at the memory any more, as it would for an array. So no
/// path takes a lock or counts users, and memory is never given away under a reader.
/// </remarks>
internal sealed class NativeBlock : CriticalFinalizerObject
{
    private readonly nint _length;
    private readonly nint _allocation;

    /// <summary>Allocates memory of any content.</summary>
    /// <param name="length">Number of bytes.</param>
    /// <param name="alignment">A power of two, at least 4096.</param>
    /// <exception cref="OutOfMemoryException">There is none.</exception>
    public NativeBlock(int length, int alignment)
    {
        _length = length;
        if (LinuxMemory.IsAvailable)
        {
            Address = LinuxMemory.Map(_length, Math.Max(alignment, Environment.SystemPageSize));
            if (Address == 0)
            {
                GC.SuppressFinalize(this);
                throw new OutOfMemoryException("The system has no memory for another part of a disk.");
            }
        }
        else
        {
            _allocation = Marshal.AllocHGlobal(_length + alignment);
            Address = (_allocation + alignment - 1) & ~((nint)alignment - 1);
        }
        Memory = new NativeMemory(this, length).Memory;
        // So that the collector, which sees only this small object, looks for garbage as often as it should.
        GC.AddMemoryPressure(_length);
    }

    ~NativeBlock()
    {
        if (_allocation != 0)
        {
            Marshal.FreeHGlobal(_allocation);
        }
        else if (Address != 0)
        {
            LinuxMemory.Unmap(Address, _length);
        }
        else
        {
            return;
        }
        GC.RemoveMemoryPressure(_length);
    }

    /// <summary>Where it lies.</summary>
    public nint Address { get; }

    /// <summary>All of it.</summary>
    public Memory<byte> Memory { get; }

    /// <summary>Bytes at an address of native or pinned memory, whose owner the caller keeps alive.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Span<byte> SpanAt(nint address, int count)
        => MemoryMarshal.CreateSpan(ref Unsafe.AddByteOffset(ref Unsafe.NullRef<byte>(), address), count);

    /// <summary>Lets the processor fetch what lies at an address. A hint: any address will do.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe void Prefetch(nint address)
    {
        if (Sse.IsSupported)
        {
            Sse.Prefetch0((void*)address);
        }
    }

    /// <summary>
    /// Gives the system's pages that lie inside a range back where that is possible; the content of the range is lost in any case.
    /// </summary>
    public void GiveBack(int start, int count)
    {
        nint page = Environment.SystemPageSize;
        nint first = (start + page - 1) & ~(page - 1);
        nint end = start + count == _length ? _length : (start + count) & ~(page - 1);
        if (LinuxMemory.IsAvailable && end > first)
        {
            LinuxMemory.GiveBack(Address + first, end - first);
        }
        // Freed in the middle, the address could be somebody else's.
        GC.KeepAlive(this);
    }

    /// <summary>All of it is likely to be used: larger pages are faster, in taking them too.</summary>
    public void UseLargePages()
    {
        if (LinuxMemory.IsAvailable)
        {
            LinuxMemory.UseLargePages(Address, _length);
        }
    }

    /// <summary>All of it turned out to be used. Copies all of it; while that lasts, other threads may use it.</summary>
    public void MoveIntoLargePages()
    {
        if (LinuxMemory.IsAvailable)
        {
            LinuxMemory.MoveIntoLargePages(Address, _length);
        }
        GC.KeepAlive(this);
    }
}
