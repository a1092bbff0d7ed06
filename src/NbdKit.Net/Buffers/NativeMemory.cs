using System.Buffers;

namespace NbdKit.Buffers;

/// <summary>The bytes of a block for those who need a <see cref="Memory{T}"/>, which keeps the block alive.</summary>
internal sealed class NativeMemory(NativeBlock block, int length) : MemoryManager<byte>
{
    public override Span<byte> GetSpan() => NativeBlock.SpanAt(block.Address, length);

    // It never moves. The handle refers to this object, and so to the block.
    public override unsafe MemoryHandle Pin(int elementIndex = 0)
        => new((void*)(block.Address + elementIndex), pinnable: this);

    public override void Unpin()
    {
    }

    protected override void Dispose(bool disposing)
    {
    }
}
