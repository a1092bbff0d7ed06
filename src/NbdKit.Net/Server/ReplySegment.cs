using System.Buffers;
using NbdKit.Buffers;

namespace NbdKit.Server;

/// <summary>
/// Whole replies in one piece of memory, ready to be sent. Owns its memory: a hold on a slab, or an array of the shared pool.
/// </summary>
internal readonly struct ReplySegment
{
    private readonly Slab? _slab;
    private readonly byte[]? _rented;

    private ReplySegment(Slab? slab, byte[]? rented, Memory<byte> memory)
    {
        _slab = slab;
        _rented = rented;
        Memory = memory;
    }

    public Memory<byte> Memory { get; }

    public ReadOnlyMemory<byte> Bytes => Memory;

    /// <summary>Part of a slab; the caller's hold on it moves to the segment.</summary>
    public static ReplySegment In(Slab slab, Memory<byte> bytes) => new(slab, null, bytes);

    /// <summary>The start of a rented array, which the segment returns.</summary>
    public static ReplySegment Rented(byte[] rented, int count) => new(null, rented, rented.AsMemory(0, count));

    public void Release()
    {
        _slab?.Release();
        if (_rented is not null)
        {
            ArrayPool<byte>.Shared.Return(_rented);
        }
    }
}
