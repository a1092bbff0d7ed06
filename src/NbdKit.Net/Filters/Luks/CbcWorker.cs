namespace NbdKit.Filters.Luks;

/// <summary>
/// CBC: every block is masked with the encrypted block before it, the first of a sector with its initialization vector. Blocks
/// of one sector can only be encrypted one after the other, so it is done for all sectors of a batch at once.
/// </summary>
internal sealed class CbcWorker : CipherWorker
{
    private readonly AesBlocks _data;
    private readonly byte[] _row = GC.AllocateArray<byte>(BatchBytes / 512 * CipherSpec.Block, pinned: true);

    public CbcWorker(CipherSpec cipher, ReadOnlySpan<byte> key, int sectorSize)
        : base(cipher, key, sectorSize)
        => _data = new AesBlocks(key);

    public override void Encrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector)
    {
        int sectors = FillVectors(source.Length, sector);
        source.CopyTo(Blocks);
        Vectors.AsSpan(0, sectors * CipherSpec.Block).CopyTo(_row);
        for (int column = 0; column < SectorSize; column += CipherSpec.Block)
        {
            for (int i = 0; i < sectors; i++)
            {
                Span<byte> before = BlockOf(i);
                BlockXor.Apply(Blocks.AsSpan((i * SectorSize) + column, CipherSpec.Block), before, before);
            }
            _data.Encrypt(_row, sectors * CipherSpec.Block);
            for (int i = 0; i < sectors; i++)
            {
                BlockOf(i).CopyTo(Blocks.AsSpan((i * SectorSize) + column));
            }
        }
        Blocks.AsSpan(0, source.Length).CopyTo(target);
    }

    public override void Decrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector)
    {
        int sectors = FillVectors(source.Length, sector);
        source.CopyTo(Blocks);
        _data.Decrypt(Blocks, source.Length);
        for (int i = 0; i < sectors; i++)
        {
            ReadOnlySpan<byte> encrypted = source.Slice(i * SectorSize, SectorSize);
            Span<byte> sectorBlocks = Blocks.AsSpan(i * SectorSize, SectorSize);
            Span<byte> first = sectorBlocks[..CipherSpec.Block];
            Span<byte> rest = sectorBlocks[CipherSpec.Block..];
            BlockXor.Apply(first, Vectors.AsSpan(i * CipherSpec.Block, CipherSpec.Block), first);
            BlockXor.Apply(rest, encrypted[..^CipherSpec.Block], rest);
        }
        Blocks.AsSpan(0, source.Length).CopyTo(target);
    }

    public override void Dispose()
    {
        base.Dispose();
        _data.Dispose();
    }

    private Span<byte> BlockOf(int sector) => _row.AsSpan(sector * CipherSpec.Block, CipherSpec.Block);
}
