using System.Runtime.InteropServices;
using Microsoft.Extensions.ObjectPool;
using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Buffers;

/// <summary>
/// A range of a disk as the layer that holds it has it, lent so that it is sent, or received into, without a copy: pieces of
/// memory in order that cover the range exactly, or a range of a file.
/// </summary>
/// <remarks>
/// <para>
/// What is lent stays valid for as long as the loan refers to it, whatever the layer does meanwhile. Its content may
/// change while it is lent, as that of any range under parallel requests.
/// </para>
/// <para>
/// The kernel may send it from where it lies, and then looks at it until the client has received it: long after the loan has
/// ended. So memory that is lent must never hold anything but that range of the disk, until the system has it back.
/// </para>
/// </remarks>
internal sealed class Loan : IResettable
{
    private readonly List<Piece> _pieces = [];

    /// <summary>The number of bytes lent.</summary>
    public int Length { get; private set; }

    /// <summary>Whether it may be a range of a file; else it must be memory.</summary>
    public bool TakesFile { get; set; }

    /// <summary>The file that is lent from, open for as long as the loan refers to it; null for memory.</summary>
    public SafeFileHandle? File { get; private set; }

    /// <summary>The first byte in <see cref="File"/>.</summary>
    public long FileOffset { get; private set; }

    /// <summary>Makes the loan one of a file range.</summary>
    public void SetFile(SafeFileHandle file, long offset, int count)
    {
        bool added = false;
        file.DangerousAddRef(ref added);
        File = file;
        FileOffset = offset;
        Length = count;
    }

    /// <summary>Adds the next piece.</summary>
    /// <param name="memory">Memory that does not move.</param>
    /// <param name="address">Where it lies.</param>
    public void Add(Memory<byte> memory, nint address)
    {
        _pieces.Add(new Piece(memory, address));
        Length += memory.Length;
    }

    /// <summary>Adds the next piece: part of an array of the pinned object heap.</summary>
    public void Add(byte[] pinned, int start, int count)
        => Add(pinned.AsMemory(start, count), Marshal.UnsafeAddrOfPinnedArrayElement(pinned, start));

    /// <summary>The rest of the piece that a position lies in.</summary>
    public Memory<byte> PieceAt(int position)
    {
        int i = 0;
        while (position >= _pieces[i].Memory.Length)
        {
            position -= _pieces[i++].Memory.Length;
        }
        return _pieces[i].Memory[position..];
    }

    /// <summary>Fills in the memory from a position on, as much as the vectors take; returns how many were used.</summary>
    public int FillVectors(int position, Span<IoVector> vectors)
    {
        int used = 0;
        foreach (Piece piece in CollectionsMarshal.AsSpan(_pieces))
        {
            if (position >= piece.Memory.Length)
            {
                position -= piece.Memory.Length;
                continue;
            }
            if (used == vectors.Length)
            {
                break;
            }
            vectors[used++] = new IoVector(piece.Address + position, piece.Memory.Length - position);
            position = 0;
        }
        return used;
    }

    /// <summary>Lets go of the memory; the pool calls it when it gets the loan back.</summary>
    public bool TryReset()
    {
        _pieces.Clear();
        Length = 0;
        File?.DangerousRelease();
        File = null;
        return true;
    }

    private readonly record struct Piece(Memory<byte> Memory, nint Address);
}
