using System.Buffers;

namespace NbdKit.Copy;

/// <summary>The buffer of one worker: rented when it is first needed, and kept for all the pieces of that worker.</summary>
internal sealed class CopyBuffer(int size) : IDisposable
{
    private byte[]? _array;

    public Memory<byte> Memory => (_array ??= ArrayPool<byte>.Shared.Rent(size)).AsMemory(0, size);

    public void Dispose()
    {
        if (_array is not null)
        {
            ArrayPool<byte>.Shared.Return(_array);
            _array = null;
        }
    }
}
