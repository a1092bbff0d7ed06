using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace NbdKit.Filters.Luks;

/// <summary>
/// XTS (IEEE 1619): every block is masked with a tweak before and after AES. The tweak of the first block of a sector is its
/// initialization vector, encrypted with the second half of the key; that of the next is the one before times α in GF(2^128).
/// </summary>
internal sealed class XtsWorker : CipherWorker
{
    private readonly AesBlocks _data;
    private readonly AesBlocks _tweak;
    private readonly byte[] _tweaks = GC.AllocateArray<byte>(BatchBytes, pinned: true);

    public XtsWorker(CipherSpec cipher, ReadOnlySpan<byte> key, int sectorSize)
        : base(cipher, key, sectorSize)
    {
        _data = new AesBlocks(key[..(key.Length / 2)]);
        _tweak = new AesBlocks(key[(key.Length / 2)..]);
    }

    public override void Encrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector)
    {
        Mask(source, sector);
        _data.Encrypt(Blocks, source.Length);
        Unmask(target[..source.Length]);
    }

    public override void Decrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector)
    {
        Mask(source, sector);
        _data.Decrypt(Blocks, source.Length);
        Unmask(target[..source.Length]);
    }

    public override void Dispose()
    {
        base.Dispose();
        _data.Dispose();
        _tweak.Dispose();
    }

    private void Mask(ReadOnlySpan<byte> source, ulong sector)
    {
        int sectors = FillVectors(source.Length, sector);
        _tweak.Encrypt(Vectors, sectors * CipherSpec.Block);
        Span<Vector128<byte>> tweaks = MemoryMarshal.Cast<byte, Vector128<byte>>(_tweaks.AsSpan(0, source.Length));
        ReadOnlySpan<Vector128<byte>> first = MemoryMarshal.Cast<byte, Vector128<byte>>(Vectors);
        int blocks = SectorSize / CipherSpec.Block;
        for (int i = 0; i < sectors; i++)
        {
            Spread(first[i], tweaks.Slice(i * blocks, blocks));
        }
        BlockXor.Apply(source, _tweaks.AsSpan(0, source.Length), Blocks.AsSpan(0, source.Length));
    }

    private void Unmask(Span<byte> target)
        => BlockXor.Apply(Blocks.AsSpan(0, target.Length), _tweaks.AsSpan(0, target.Length), target);

    private static void Spread(Vector128<byte> tweak, Span<Vector128<byte>> tweaks)
    {
        for (int i = 0; i < tweaks.Length; i++)
        {
            tweaks[i] = tweak;
            tweak = Double(tweak);
        }
    }

    // A number of 128 bits, the lowest byte first: what its upper bit would become is x^7 + x^2 + x + 1. Both halves are
    // shifted at once; the bit that each loses comes from the sign of its upper quarter.
    private static Vector128<byte> Double(Vector128<byte> tweak)
    {
        Vector128<int> lost = Vector128.Shuffle(
            Vector128.ShiftRightArithmetic(tweak.AsInt32(), 31), Vector128.Create(3, 3, 1, 1));
        return (Vector128.ShiftLeft(tweak.AsUInt64(), 1) ^ (lost & Vector128.Create(0x87, 0, 1, 0)).AsUInt64()).AsByte();
    }
}
