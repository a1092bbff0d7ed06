using NbdKit.Buffers;

namespace NbdKit.Server;

/// <summary>
/// Whole replies in one piece of memory, ready to be sent. Owns its memory: a hold on a slab, or an array of <see cref="PayloadArrays"/>.
/// </summary>
internal readonly struct ReplySegment
{
    private readonly Slab? _slab;
    private readonly byte[]? _rented;

    private ReplySegment(Slab? slab, byte[]? rented, Memory<byte> memory, Loan? loan = null)
    {
        Loan = loan;
        _slab = slab;
        _rented = rented;
        Memory = memory;
    }

    public Memory<byte> Memory { get; }

    public ReadOnlyMemory<byte> Bytes => Memory;

    /// <summary>Memory of a layer that follows the bytes, or null; the pool gets the loan back from whoever sent it.</summary>
    public Loan? Loan { get; }

    /// <summary>The number of bytes to send.</summary>
    public int Length => Memory.Length + (Loan?.Length ?? 0);

    /// <summary>
    /// The bytes of memory that wait with it to be sent. An array of a pool is up to twice as long as what was asked for, and a
    /// power of two with a header in front is just that: clients must not get the half of it for nothing.
    /// </summary>
    public int Held => (_rented?.Length ?? Memory.Length) + (Loan?.Length ?? 0);

    /// <summary>Part of a slab; the caller's hold on it moves to the segment.</summary>
    public static ReplySegment In(Slab slab, Memory<byte> bytes) => new(slab, null, bytes);

    /// <summary>The start of a rented array, which the segment returns.</summary>
    public static ReplySegment Rented(byte[] rented, int count) => new(null, rented, rented.AsMemory(0, count));

    /// <summary>This segment with lent memory behind it.</summary>
    public ReplySegment With(Loan loan) => new(_slab, _rented, Memory, loan);

    /// <summary>Gives the memory back; <paramref name="payloads"/> is where an array was rented.</summary>
    public void Release(PayloadArrays payloads)
    {
        _slab?.Release();
        if (_rented is not null)
        {
            payloads.Return(_rented);
        }
    }
}
